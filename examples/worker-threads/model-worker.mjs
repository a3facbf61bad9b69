// The side that owns the model. Messages in: { id, image, prompt } or { id, abort: true } or { end: true };
// out: { id, text } or { id, error: { code, message } }, and { ready: true } once.
import { parentPort, workerData } from 'node:worker_threads'
import { loadModel } from 'node-paligemma'

const model = await loadModel(workerData.model)
const running = new Map()

async function answer({ id, image, prompt }) {
  const gone = new AbortController()
  running.set(id, gone)
  try {
    const { text } = await model.generate({ image, prompt, signal: gone.signal })
    parentPort.postMessage({ id, text })
  } catch (error) {
    parentPort.postMessage({ id, error: { code: error.code ?? error.name, message: error.message } })
  } finally {
    running.delete(id)
  }
}

parentPort.on('message', async (message) => {
  if (message.end) {
    await model.dispose()
    parentPort.close()
  } else if (message.abort) running.get(message.id)?.abort()
  else await answer(message)
})
parentPort.postMessage({ ready: true })
