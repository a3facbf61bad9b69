// One scenario of changing-files.addon.test.ts, in a process of its own, which a wrong one would kill:
//   node changing-files-child.cjs ADDON MODEL OTHER_MODEL SCENARIO
// MODEL is a copy that may be spoilt. It uses the addon directly and prints one JSON line with what it saw.
'use strict'
const fs = require('node:fs')
const path = require('node:path')
const { Worker, isMainThread, workerData } = require('node:worker_threads')

const [addonPath, file, otherFile, scenario] = isMainThread ? process.argv.slice(2) : workerData
const brief = { kind: 'generate', images: [], prompt: 'caption en', maxTokens: 8, ignoreEos: true }
const endless = { ...brief, maxTokens: 2 ** 31 - 1 }

/** A loaded model, or the code with which loading ended. */
async function open(options = {}, addon = require(addonPath)) {
  const waiting = new Map()
  const ends = new Map()
  const texts = new Map()
  let tokens = 0
  let onToken = () => {}
  const tell = (job, value) => {
    ends.set(job, value)
    waiting.get(job)?.(value)
  }
  const native = new addon.Model({ path: file, threads: 2, ...options }, (events) => {
    for (const event of events) {
      if (event.kind === 'token') {
        texts.set(event.job, (texts.get(event.job) ?? '') + event.text)
        onToken(++tokens)
      } else if (event.kind === 'end') tell(event.job, `text: ${(texts.get(event.job) ?? '') + event.text}`)
      else tell(event.kind === 'stopped' ? 'stopped' : event.job, event.code ?? event.kind)
    }
  })
  const ended = async (job) => ends.get(job) ?? (await new Promise((resolve) => waiting.set(job, resolve)))
  return {
    native,
    loaded: await ended(0),
    run: async (request = brief) => await ended(native.submit(request)),
    /** A request without end, of which `act` happens after some tokens. */
    runAndThen: async (act) => {
      tokens = 0
      onToken = (count) => count === 3 && act()
      return await ended(native.submit(endless))
    },
    dispose: async () => {
      native.dispose()
      return await ended('stopped')
    }
  }
}

const cut = () => fs.truncateSync(file, 4096)

/** In place: the same size, other bytes. */
function overwrite() {
  const handle = fs.openSync(file, 'r+')
  fs.writeSync(handle, Buffer.alloc(50_000, 0xa5), 0, 50_000, fs.statSync(file).size - 50_000)
  fs.closeSync(handle)
}

/** Two requests around something that happens to the file, and what another model says afterwards. */
async function between(act, options) {
  const model = await open(options)
  const before = await model.run()
  act()
  const after = [await model.run(), await model.run({ ...brief, prompt: 'ocr' })]
  const tokens = model.native.tokenize('a cat', false).length > 0
  const stopped = await model.dispose()
  const other = await open({ path: otherFile })
  return { same: after[0] === before, after, tokens, stopped, other: (await other.run()) === before }
}

const scenarios = {
  cutWhileIdle: async () => await between(cut),
  cutToNothing: async () => await between(() => fs.truncateSync(file, 0)),
  overwritten: async () => await between(overwrite),
  extended: async () => await between(() => fs.appendFileSync(file, 'more')),
  copied: async () => await between(cut, { weights: 'copy' }),
  deleted: async () => await between(() => fs.rmSync(file)),
  replaced: async () =>
    await between(() => {
      fs.writeFileSync(`${file}.new`, 'another model')
      fs.renameSync(`${file}.new`, file)
    }),

  async cutWhileRunning() {
    const model = await open()
    const bystander = await open({ path: otherFile })
    const others = Promise.all([bystander.run(), bystander.run({ ...brief, maxTokens: 200 })])
    const ends = await Promise.all([model.run(endless), model.run(endless), model.runAndThen(cut)])
    return { ends, later: await model.run(), others: (await others).every((text) => text.startsWith('text: ')) }
  },

  async overwrittenWhileRunning() {
    return { end: await (await open()).runAndThen(overwrite) }
  },

  /** At many moments of the load. */
  async cutWhileLoading() {
    const whole = fs.readFileSync(file)
    const seen = new Set()
    for (let i = 0; i < 40; i++) {
      fs.writeFileSync(file, whole)
      const loading = open(i % 2 ? { weights: 'copy' } : {})
      const until = performance.now() + i / 8
      while (performance.now() < until);
      fs.truncateSync(file, (i * 4096) % whole.length)
      const model = await loading
      seen.add(model.loaded)
      if (model.loaded === 'ready') seen.add((await model.run()).replace(/^text: .*/s, 'text'))
      await model.dispose()
    }
    return { seen: [...seen] }
  },

  /** Each with its own handler, the second before the first in the chain. */
  async twoAddons() {
    const copy = path.join(path.dirname(file), 'second.node')
    fs.copyFileSync(addonPath, copy)
    const second = `${file}.second`
    fs.copyFileSync(file, second)
    const models = [await open(), await open({ path: second }, require(copy))]
    const ends = []
    for (const [i, model] of models.entries())
      ends.push(await model.runAndThen(() => fs.truncateSync([file, second][i], 4096)))
    return { ends }
  },

  /** Node unloads the addon with the worker; its handler must not dangle. */
  async afterAWorker() {
    const worker = new Worker(__filename, { workerData: [addonPath, file, otherFile, 'worker'] })
    await new Promise((resolve) => worker.once('exit', resolve))
    process.kill(process.pid, 'SIGBUS')
    await new Promise((resolve) => setTimeout(resolve, 5000))
    return { alive: true }
  },
  worker: async () => await (await open()).run(),

  async foreignSignal() {
    await open()
    process.kill(process.pid, 'SIGBUS')
    await new Promise((resolve) => setTimeout(resolve, 5000))
    return { alive: true }
  }
}

scenarios[scenario]().then(
  (value) => {
    if (!isMainThread) return process.exit(0)
    console.log(JSON.stringify(value))
    process.exit(0)
  },
  (error) => {
    console.error(error)
    process.exit(1)
  }
)
