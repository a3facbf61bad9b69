// The one model of the process, and how a server ends: no new requests, then the model.
import { loadModel } from 'node-paligemma'

export const model = await loadModel({ model: process.env.MODEL, maxSequences: 4, maxQueue: 32 })
export const port = Number(process.env.PORT ?? 3000)

/** 503 tells a load balancer to try another instance. */
export const statusOf = (error) =>
  error.code === 'ERR_BUSY' ? 503 : /^ERR_(IMAGE|INVALID|PROMPT)/.test(error.code) ? 400 : 500

/** `close`: ends the server and calls back. */
export function endWith(close) {
  process.once('SIGTERM', () => close(async () => await model.dispose()))
}
