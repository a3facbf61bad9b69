/** The demo model learns what it has never seen: moons, their places and colours; what it knew it keeps. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { loadModel, type PaliGemma, type TrainedAdapter } from '../../lib/index'
import { drawMoon, lessons, type Moon, overlap } from '../support/moons'

// PALIGEMMA_TEACH=64,20,300: examples, epochs and held-out pictures of a longer run
const [count = 48, epochs = 8, held = 8] = (process.env['PALIGEMMA_TEACH'] ?? '').split(',').filter(Boolean).map(Number)

let model: PaliGemma
beforeAll(async () => {
  model = await loadModel({ model: 'demo', threads: 2 })
})
afterAll(async () => await model.dispose())

/** Shares of right answers and of moons that are found. */
async function examine(moons: Moon[], adapters: TrainedAdapter[]): Promise<{ answers: number; recall: number }> {
  let [right, found] = [0, 0]
  for (const { image, color, box } of moons) {
    const common = { image, adapters, maxTokens: 12 }
    const shape = await model.generate({ ...common, prompt: `answer en what shape is ${color}?` })
    const shade = await model.generate({ ...common, prompt: 'answer en what color is the moon?' })
    right += Number(shape.text === 'moon') + Number(shade.text === color)
    const [first] = await model.detect(image, 'moon', { adapters, maxObjects: 1 })
    const { width, height } = image
    if (!first) continue
    const { x, y, width: w, height: h } = first.box
    found += Number(overlap([y / height, x / width, (y + h) / height, (x + w) / width], box) > 0.5)
  }
  return { answers: right / moons.length / 2, recall: found / moons.length }
}

it('learns moons from a few dozen examples', { timeout: 600_000 }, async () => {
  const heldOut = Array.from({ length: held }, (_, i) => drawMoon(5000 + i))
  const before = await examine(heldOut, [])
  expect(before.answers).toBeLessThan(0.6)
  const data = Array.from({ length: count }, (_, i) => lessons(drawMoon(i))[i % 3]!)
  const begun = performance.now()
  const { adapter, losses } = await model.fit(data, {
    ...{ epochs, batchSize: 8, learningRate: 2e-3, rank: 8, warmup: 5 },
    targets: (process.env['PALIGEMMA_TARGETS'] ?? 'all').split(',')
  })
  const seconds = (performance.now() - begun) / 1000
  const after = await examine(heldOut, [adapter])
  if (process.env['PALIGEMMA_TEACH'])
    console.log({ count, epochs, seconds, before, after, first: losses[0], last: losses.at(-1) })
  expect(losses.at(-1)).toBeLessThan(losses[0]! / 2)
  expect(after.answers).toBeGreaterThan(before.answers + 0.2)
})
