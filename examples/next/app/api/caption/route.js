import { loadModel } from 'node-paligemma'

export const runtime = 'nodejs'

export async function POST(request) {
  globalThis.paligemma ??= loadModel(process.env.MODEL) // one per process; survives hot reloading
  const model = await globalThis.paligemma
  const image = new Uint8Array(await request.arrayBuffer())
  const { text } = await model.generate({ image, prompt: 'caption en', maxTokens: 32, signal: request.signal })
  return Response.json({ text })
}
