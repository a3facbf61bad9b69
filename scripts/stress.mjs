// npm run stress: what takes minutes and is quick in the tests (test/engine/stress.long.test.ts), by name:
//   node scripts/stress.mjs terminate [--rounds 1000]   workers ended at random moments of every kind of work
//   node scripts/stress.mjs threads                     1 to 64 threads, fewer CPUs than threads: the same bits
//   node scripts/stress.mjs models [--rounds 100]       so many models at once, from two copies of the addon
// Exit code 1 where anything is not as it should be; a crash ends the process.
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { nativePath } from '../dist/engine/native.js'
import { demoImage, loadModel, quantizeModel } from '../dist/index.js'

const here = fileURLToPath(import.meta.url)
const demo = join(dirname(here), '..', 'demo', 'paligemma2-demo.gguf')

async function probe(model) {
  const asked = { image: demoImage, prompt: 'detect star ; circle', maxTokens: 12, logProbs: 2 }
  const { text, tokens } = await model.generate(asked)
  return JSON.stringify([text, tokens])
}

/** One answer of a model of its own. */
async function answer(options = {}) {
  const model = await loadModel({ model: demo, ...options })
  try {
    return await probe(model)
  } finally {
    await model.dispose()
  }
}

// What a worker may be in the middle of; each goes on until the worker is ended.
const works = {
  load: async () => void (await answer({ threads: 1 + (Date.now() % 3) })),
  vision: async (model) => void (await model.encodeImage(demoImage)),
  prefill: async (model) => void (await model.score({ image: demoImage, prompt: 'caption en', suffix: 'a star' })),
  decode: async (model) => void (await model.generate({ prompt: 'caption en', maxTokens: 300, ignoreEos: true })),
  batch: async (model) => {
    for await (const _ of model.batch([demoImage, demoImage, demoImage], { task: 'caption', concurrency: 2 }));
  },
  fit: async (model) =>
    void (await model.fit([{ image: demoImage, prefix: 'caption en', suffix: 'a star' }], { steps: 20, rank: 2 })),
  convert: async () => {
    const dir = mkdtempSync(join(workerData.dir, 'w-'))
    await quantizeModel({ source: demo, out: join(dir, 'q.gguf'), type: 'Q4_0' })
    rmSync(dir, { recursive: true })
  }
}

async function workForEver(kind) {
  const model = kind === 'load' || kind === 'convert' ? undefined : await loadModel({ model: demo, threads: 2 })
  parentPort.postMessage('working')
  for (;;) await works[kind](model)
}

async function terminate(rounds, dir) {
  const model = await loadModel({ model: demo, threads: 2 })
  const first = await probe(model)
  const kinds = Object.keys(works)
  for (let round = 0; round < rounds; round++) {
    const kind = kinds[round % kinds.length]
    const worker = new Worker(here, { workerData: { kind, dir } })
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 40))
    const code = await worker.terminate()
    if (code !== 1) throw new Error(`round ${round}, ${kind}: the worker ended with ${code}`)
    if (round % 20 === 19 && (await probe(model)) !== first)
      throw new Error(`round ${round}: the probe gave other bits`)
  }
  await model.dispose()
  return `${rounds} workers terminated in ${kinds.join(', ')}; the probe kept its bits`
}

/** The answer of a process that may use one CPU only. */
function onOneCpu(threads) {
  const code = `import(${JSON.stringify(here)}).then(async (m) => console.log(await m.answer({ threads: ${threads} })))`
  const { status, stdout, stderr } = spawnSync('taskset', ['-c', '0', process.execPath, '-e', code], {
    encoding: 'utf8'
  })
  if (status !== 0) throw new Error(`on one CPU with ${threads} threads: ${stderr}`)
  return stdout.trim()
}

async function threads() {
  const counts = [1, 2, 3, 4, 5, 7, 8, 16, 31, 32, 63, 64]
  const first = await answer({ threads: 1 })
  for (const count of counts)
    if ((await answer({ threads: count })) !== first) throw new Error(`${count} threads give other bits than 1`)
  const pinned = spawnSync('taskset', ['--version']).status === 0 ? [1, 8] : []
  for (const count of pinned)
    if (onOneCpu(count) !== first) throw new Error(`${count} threads on one CPU give other bits`)
  return `${counts.join(', ')} threads give the same bits${pinned.length ? ', also on one CPU' : ''}`
}

function threadsNow() {
  return Number(/^Threads:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'latin1'))[1])
}

async function models(rounds, dir) {
  const copy = join(dir, 'copy.node') // another file is another instance of everything native
  copyFileSync(nativePath(), copy)
  const first = await answer({ threads: 2 })
  const linux = existsSync('/proc/self/status')
  const before = linux ? threadsNow() : 0
  const all = await Promise.all(
    Array.from({ length: rounds }, async (_, i) => {
      return await loadModel({ model: demo, threads: 1, ...(i % 2 ? { nativeBinding: copy } : {}) })
    })
  )
  const answers = await Promise.all(all.map(probe))
  await Promise.all(all.map(async (model) => await model.dispose()))
  if (answers.some((one) => one !== first)) throw new Error('one of the models gave other bits')
  if (linux && threadsNow() > before + 4) throw new Error(`threads were left: ${threadsNow()} after ${before}`)
  return `${rounds} models at once, half of them of a second copy of the addon: the same bits, no thread left`
}

export { answer }

if (!isMainThread && workerData?.kind) await workForEver(workerData.kind)
else if (process.argv[1] === here) {
  const { positionals, values } = parseArgs({ allowPositionals: true, options: { rounds: { type: 'string' } } })
  const parts = { terminate: [terminate, 1000], threads: [threads, 0], models: [models, 100] }
  const chosen = positionals.length > 0 ? positionals : Object.keys(parts)
  const dir = mkdtempSync(join(tmpdir(), 'paligemma-stress-'))
  try {
    for (const name of chosen) {
      const [part, rounds] = parts[name]
      console.log(await part(Number(values.rounds ?? rounds), dir))
    }
  } catch (error) {
    console.log(`FAILED ${error.stack}`)
    process.exitCode = 1
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}
