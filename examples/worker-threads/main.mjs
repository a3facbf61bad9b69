// The side that asks. Its event loop may be as busy as it likes.
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'

const worker = new Worker(new URL('./model-worker.mjs', import.meta.url), {
  workerData: { model: process.env.MODEL ?? 'demo' }
})
const waiting = new Map()
worker.on('message', ({ id, text, error }) => {
  waiting.get(id)?.(error ? Promise.reject(Object.assign(new Error(error.message), { code: error.code })) : text)
  waiting.delete(id)
})
await once(worker, 'message') // ready

let last = 0
function ask(image, prompt, signal) {
  const id = ++last
  signal?.addEventListener('abort', () => worker.postMessage({ id, abort: true }))
  worker.postMessage({ id, image, prompt })
  return new Promise((resolve) => waiting.set(id, resolve))
}

for (const image of process.argv.slice(2)) console.log(await ask(image, 'caption en'))
worker.postMessage({ end: true })
