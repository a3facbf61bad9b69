// The one model of the process, and how a server ends: no new requests, then the model.
import { Readable } from 'node:stream'
import { loadModel } from 'node-paligemma'

export const model = await loadModel({ model: process.env.MODEL, maxSequences: 4, maxQueue: 32 })
export const port = Number(process.env.PORT ?? 3000)

/** The caption as a stream of text; rejects before anything is sent where the picture or the load is at fault. */
export async function caption(image, signal) {
  const chunks = model.stream({ image, prompt: 'caption en', signal })[Symbol.asyncIterator]()
  const first = await chunks.next()
  async function* texts() {
    for (let chunk = first; !chunk.done; chunk = await chunks.next()) yield chunk.value.text
  }
  return Readable.from(texts())
}

/** 503 tells a load balancer to try another instance. */
export const statusOf = (error) =>
  error.code === 'ERR_BUSY' ? 503 : /^ERR_(IMAGE|INVALID|PROMPT)/.test(error.code) ? 400 : 500

/** `close`: ends the server and calls back. */
export function endWith(close) {
  // SIGINT is what PM2 sends
  for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, () => close(async () => await model.dispose()))
}
