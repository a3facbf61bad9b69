// node-paligemma: the picture's encoding, or prefill and decoding after a picture that is encoded already.
import { randomFillSync } from 'node:crypto'
import { loadModel } from '../../dist/index.mjs'
import { serve, timed } from './child.mjs'

await serve(async ({ path, threads, work, prefill, tokens }) => {
  const model = await loadModel({ model: path, threads })
  const { imageSize, imageTokens, isa, quantization } = model.info
  const picture = () => ({
    data: randomFillSync(new Uint8Array(imageSize ** 2 * 3)),
    width: imageSize,
    height: imageSize
  })
  const info = { isa, name: `node-paligemma ${quantization}` }
  if (work === 'vision') return { info, run: async () => ({ vision: await timed(() => model.encodeImage(picture())) }) }

  const image = await model.encodeImage(picture())
  let prompts = 0
  // each prompt is another one, because recent prefixes are kept; a location is one token
  const prompt = () => {
    const first = prompts++
    const places = Array.from({ length: prefill - imageTokens - 2 }, (_, i) => (first + i * 37) % 1024)
    return places.map((place) => `<loc${String(place).padStart(4, '0')}>`).join('')
  }
  const run = async () => {
    const request = { image, prompt: prompt(), ignoreEos: true }
    let before
    const first = await timed(async () => {
      before = await model.generate({ ...request, maxTokens: 1 })
    })
    if (before.usage.promptTokens + imageTokens !== prefill)
      throw new Error(`${before.usage.promptTokens} + ${imageTokens} tokens, not ${prefill}`)
    // the same prefix again is not computed again: what is left is decoding
    const decode = await timed(() => model.generate({ ...request, maxTokens: tokens + 1 }), tokens)
    return { prefill: first, decode }
  }
  return { info, run }
})
