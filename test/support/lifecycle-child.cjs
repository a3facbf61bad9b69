// One scenario of lifecycle.test.ts, in a process of its own:
//   node [--expose-gc] lifecycle-child.cjs ADDON MODEL SCENARIO ARGUMENT
// It uses the addon directly, without lib/, and prints one JSON line with what it saw.
'use strict'
const { Worker, isMainThread, parentPort, workerData } = require('node:worker_threads')
const { setTimeout: sleep } = require('node:timers/promises')

const [addonPath, modelPath, scenario, argument] = isMainThread ? process.argv.slice(2) : workerData
const addon = require(addonPath)
// as long as the context is: seconds
const endless = { kind: 'generate', images: [], prompt: 'caption en', maxTokens: 2 ** 31 - 1, ignoreEos: true }
const brief = { kind: 'generate', images: [], prompt: 'caption en', maxTokens: 8, ignoreEos: true }

/** A model with its events; `until` resolves with the first event that matches. */
function open(options = {}, onEvent = () => {}) {
  const waiting = []
  const seen = []
  const native = new addon.Model({ path: modelPath, threads: 2, ...options }, (events) => {
    const errors = []
    for (const event of events) {
      if (event.kind !== 'token') seen.push(event)
      for (const wait of waiting.filter((entry) => entry.matches(event))) {
        waiting.splice(waiting.indexOf(wait), 1)
        wait.resolve(event)
      }
      try {
        onEvent(event)
      } catch (error) {
        errors.push(error)
      }
    }
    if (errors.length) throw errors[0]
  })
  const until = (matches) =>
    new Promise((resolve) => {
      const before = seen.find(matches)
      if (before) resolve(before)
      else waiting.push({ matches, resolve })
    })
  return {
    native,
    seen,
    until,
    ended: (job) => until((e) => e.job === job && (e.kind === 'end' || e.kind === 'error'))
  }
}

async function running(options) {
  const model = open(options)
  await model.until((event) => event.kind === 'ready')
  model.job = model.native.submit(endless)
  await model.until((event) => event.kind === 'token')
  return model
}

function report(value) {
  console.log(JSON.stringify(value))
}

/** Starts a worker that runs `what` and resolves once it says that work is under way. */
async function startWorker(what) {
  const worker = new Worker(__filename, { workerData: [addonPath, modelPath, what, ''] })
  const exit = new Promise((resolve) => worker.once('exit', resolve))
  const error = new Promise((resolve) => worker.once('error', resolve))
  await Promise.race([new Promise((resolve) => worker.once('message', resolve)), error])
  return { worker, exit, error }
}

const scenarios = {
  async terminateWorkers() {
    const codes = new Set()
    for (let i = 0; i < Number(argument); i++) {
      const { worker, exit } = await startWorker(['twoModels', 'loading', 'tools', 'flood'][i % 4])
      await sleep(i % 7)
      await worker.terminate()
      codes.add(await exit)
    }
    report({ codes: [...codes] })
  },

  async workersThatExit() {
    const codes = new Set()
    for (let i = 0; i < Number(argument); i++) codes.add(await (await startWorker('exits')).exit)
    report({ codes: [...codes] })
  },

  async workersThatThrow() {
    const messages = new Set()
    for (let i = 0; i < Number(argument); i++) {
      const { error, exit } = await startWorker(i % 2 ? 'throws' : 'throwsInHandler')
      messages.add((await error).message)
      await exit
    }
    report({ messages: [...messages] })
  },

  async workersTogether() {
    const workers = await Promise.all(Array.from({ length: Number(argument) }, () => startWorker('finishes')))
    report({ codes: await Promise.all(workers.map(({ exit }) => exit)) })
  },

  // inside workers
  async twoModels() {
    await Promise.all([running(), running()])
    parentPort.postMessage('running')
  },
  async loading() {
    open()
    open()
    parentPort.postMessage('running')
    setInterval(() => {}, 1000)
  },
  async tools() {
    const rows = new Uint8Array(4 * 256 * 4096)
    for (let i = 0; i < 8; i++) addon.quantizeRows(rows, 'f32', 'q4_k', 256).catch(() => {})
    addon.inspect(modelPath).then(() => {})
    addon.resize(new Uint8Array(3 * 500 * 500), 500, 500, 448, 'bicubic', 'squash').then(() => {})
    parentPort.postMessage('running')
    setInterval(() => {}, 1000) // the end is to come from outside
  },
  async flood() {
    // the handler is slower than the engine: termination meets a full mailbox and a running callback
    const model = open({}, () => {
      for (const end = performance.now() + 0.2; performance.now() < end; );
    })
    await model.until((event) => event.kind === 'ready')
    for (let i = 0; i < 4; i++) model.native.submit(endless)
    await model.until((event) => event.kind === 'token')
    parentPort.postMessage('running')
  },
  async exits() {
    await running()
    parentPort.postMessage('running')
    process.exit(5)
  },
  async throws() {
    await running()
    setTimeout(() => {
      throw new Error('planned')
    }, 1)
  },
  async throwsInHandler() {
    const model = open({}, (event) => {
      if (event.kind === 'token') throw new Error('planned')
    })
    await model.until((event) => event.kind === 'ready')
    model.native.submit(endless)
  },
  async finishes() {
    parentPort.postMessage('running')
    const model = open()
    await model.until((event) => event.kind === 'ready')
    const end = await model.ended(model.native.submit(brief))
    if (end.kind !== 'end') process.exit(9)
  },

  // in the main thread
  async exit() {
    const models = await Promise.all([running(), running()])
    if (argument === 'disposing') models[0].native.dispose()
    if (argument === 'loading') open()
    if (argument === 'tools') addon.quantizeRows(new Uint8Array(4 * 256 * 4096), 'f32', 'q4_k', 256)
    process.exit(7)
  },
  async exitWithWorkers() {
    await Promise.all([startWorker('twoModels'), startWorker('flood'), startWorker('tools'), running()])
    process.exit(7)
  },
  async throwsInMain() {
    await running()
    setTimeout(() => {
      throw new Error('planned')
    }, 2)
  },
  async throwsInMainHandler() {
    const model = open({}, (event) => {
      if (event.kind === 'token') throw new Error('planned')
    })
    await model.until((event) => event.kind === 'ready')
    model.native.submit(endless)
  },
  async catchesHandlerErrors() {
    let caught = 0
    process.on('uncaughtException', () => {
      caught++
    })
    const model = open({}, (event) => {
      if (event.kind === 'token') throw new Error('planned')
    })
    await model.until((event) => event.kind === 'ready')
    const end = await model.ended(model.native.submit(brief))
    report({ caught: caught > 0, end: end.kind })
  },

  async dispose() {
    const endings = new Set()
    for (let i = 0; i < Number(argument); i++) {
      const model = await running({ maxSequences: 1 })
      const queued = model.native.submit(brief)
      await sleep(i % 5)
      model.native.dispose()
      model.native.dispose()
      await model.until((event) => event.kind === 'stopped')
      endings.add((await model.ended(model.job)).code).add((await model.ended(queued)).code)
      let code
      try {
        model.native.submit(brief)
      } catch (error) {
        code = error.code
      }
      endings.add(code)
      if (model.seen.at(-1).kind !== 'stopped') endings.add(`${model.seen.at(-1).kind} came after stopped`)
    }
    report({ endings: [...endings] })
  },
  async disposeWhileLoading() {
    for (let i = 0; i < Number(argument); i++) {
      const model = open()
      if (i % 2) await sleep(0)
      model.native.dispose()
      await model.until((event) => event.kind === 'stopped')
    }
    report({ done: true })
  },
  async disposeInHandler() {
    const model = open({}, (event) => {
      if (event.kind === 'token') model.native.dispose()
    })
    await model.until((event) => event.kind === 'ready')
    const end = await model.ended(model.native.submit(endless))
    await model.until((event) => event.kind === 'stopped')
    report({ code: end.code })
  },

  async collectWhileRunning() {
    let tokens = 0
    let ends = 0
    const start = () => {
      // nobody holds the model but its own work
      const native = new addon.Model({ path: modelPath, threads: 1 }, (events) => {
        for (const event of events) {
          if (event.kind === 'ready') weak.deref().submit({ ...brief, maxTokens: 64 })
          if (event.kind === 'token') tokens++
          if (event.kind === 'end') ends++
        }
      })
      const weak = new WeakRef(native)
    }
    for (let i = 0; i < Number(argument); i++) start()
    while (ends < Number(argument)) {
      gc()
      await sleep(1)
    }
    report({ tokens, ends })
  },
  async collectIdle() {
    const use = async () => {
      const model = open()
      await model.until((event) => event.kind === 'ready')
      await model.ended(model.native.submit(brief))
      return new WeakRef(model.native)
    }
    const references = []
    for (let i = 0; i < Number(argument); i++) references.push(await use())
    for (let i = 0; i < 200 && references.some((reference) => reference.deref()); i++) {
      await sleep(5) // deref() keeps its target until the turn ends
      gc()
    }
    report({ left: references.filter((reference) => reference.deref()).length })
  },
  async collectTools() {
    const promises = []
    for (let i = 0; i < Number(argument); i++) {
      promises.push(
        addon.openTokenizer(modelPath),
        addon.openMaskDecoder(modelPath).then((decoder) => decoder.decode(new Array(16).fill(1)))
      )
      promises.push(addon.quantizeRows(new Uint8Array(4 * 256 * 16), 'f32', 'f16', 256))
      gc()
    }
    await Promise.all(promises)
    for (let i = 0; i < 10; i++) {
      gc()
      await sleep(1)
    }
    report({ done: true })
  },

  async idleModelsLetGo() {
    for (let i = 0; i < 3; i++) await open().until((event) => event.kind === 'ready')
    report({ ready: true }) // and the process ends by itself
  },
  async severalModels() {
    const texts = new Set()
    const models = await Promise.all(
      Array.from({ length: 4 }, async () => {
        const model = open({}, (event) => {
          if (event.kind === 'token') model.ids[event.job] = [...(model.ids[event.job] ?? []), event.token.id]
        })
        model.ids = {}
        await model.until((event) => event.kind === 'ready')
        return model
      })
    )
    await Promise.all(
      models.flatMap((model) => Array.from({ length: 6 }, () => model.ended(model.native.submit(brief))))
    )
    for (const model of models) for (const ids of Object.values(model.ids)) texts.add(ids.join(' '))
    report({ different: texts.size, lengths: [...texts].map((text) => text.split(' ').length) })
  },
  async cancel() {
    const model = await running()
    const codes = []
    for (let i = 0; i < Number(argument); i++) {
      const job = model.native.submit(endless)
      await sleep(i % 3)
      model.native.cancel(job)
      codes.push((await model.ended(job)).code)
    }
    model.native.cancel(model.job)
    codes.push((await model.ended(model.job)).code)
    model.native.cancel(model.job) // over already
    model.native.cancel(123456)
    report({ codes: [...new Set(codes)], after: (await model.ended(model.native.submit(brief))).kind })
  },
  async failedLoads() {
    const codes = new Set()
    for (let i = 0; i < Number(argument); i++) {
      const model = open({ path: i % 2 ? '/does/not/exist.gguf' : __filename })
      codes.add((await model.until((event) => event.kind === 'error')).code)
      if (i % 3 === 0) {
        model.native.dispose()
        await model.until((event) => event.kind === 'stopped')
      }
    }
    report({ codes: [...codes].sort() })
  }
}

scenarios[scenario]()
