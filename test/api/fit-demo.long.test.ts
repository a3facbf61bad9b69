/** The demo model learns what it has never seen: moons, their places and colours; what it knew it keeps. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { loadModel, prompts, quantizeModel } from '../../lib/index'
import type { FitExample, PaliGemma, QuantizeOptions, TrainedAdapter } from '../../lib/index'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { drawMoon, lessons, type Moon, overlap } from '../support/moons'

// PALIGEMMA_TEACH=64,12,30: examples, epochs and held-out pictures of a longer run, which also judges old skills;
// PALIGEMMA_TEACH_TYPE=Q4_K: over a copy of the demo model in that type. Needs a build, since it calls scripts.
const [count = 48, epochs = 8, held = 8] = (process.env['PALIGEMMA_TEACH'] ?? '').split(',').filter(Boolean).map(Number)
const long = process.env['PALIGEMMA_TEACH'] !== undefined
const root = join(__dirname, '..', '..')

let model: PaliGemma
let path = 'demo'
beforeAll(async () => {
  const type = process.env['PALIGEMMA_TEACH_TYPE'] as QuantizeOptions['type'] | undefined
  if (type) {
    const wide = join(tempDir(), 'wide.gguf') // rows of the demo model are too short for K types
    const script = join(root, 'scripts', 'demo-model', 'widen.mjs')
    execFileSync(process.execPath, [script, join(root, 'demo', 'paligemma2-demo.gguf'), wide])
    path = `${wide}.${type}.gguf`
    await quantizeModel({ source: wide, out: path, type })
  }
  model = await loadModel({ model: path, threads: 2 })
}, 120_000)
afterAll(async () => {
  await model.dispose()
  removeTempDirs()
})

interface Scene {
  file: string
  detect: string[]
  segment: string[]
  questions: { question: string }[]
}
const pictures = join(root, 'test', 'fixtures', 'demo-eval')
const scenes = (): Scene[] => JSON.parse(readFileSync(join(pictures, 'truth.json'), 'utf8')) as Scene[]
const rehearsed = 20

/** What it can do, as its own answers about other pictures: taught along, they keep it from forgetting. */
async function rehearsal(): Promise<FitExample[]> {
  const examples: FitExample[] = []
  for (const { file, detect, segment, questions } of scenes().slice(0, rehearsed)) {
    const image = join(pictures, file)
    const asked = [prompts.caption(), prompts.detect(detect), prompts.segment(segment)]
    for (const prompt of [...asked, ...questions.slice(0, 2).map(({ question }) => prompts.answer(question))])
      examples.push({ image, prompt, response: (await model.generate({ image, prompt, maxTokens: 200 })).text })
  }
  return examples.filter(({ response }) => response !== '')
}

/** What it could do before: everything that demo/README.md counts, on the pictures that were not rehearsed. */
async function oldSkills(adapters: TrainedAdapter[]): Promise<number> {
  const script = '../../scripts/demo-model/evaluate.mjs'
  const { evaluate } = (await import(script)) as { evaluate: (...args: unknown[]) => Promise<Record<string, number>> }
  await using judged = await loadModel({ model: path, threads: 2, adapters })
  const scores = await evaluate(judged, scenes().slice(rehearsed), pictures)
  return Object.entries(scores).find(([name]) => name.startsWith('everything'))![1]
}

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
  const taught = Array.from({ length: count }, (_, i) => lessons(drawMoon(i))[i % 3]!)
  const data = long ? [...taught, ...(await rehearsal())] : taught
  const begun = performance.now()
  const { adapter, losses } = await model.fit(data, {
    ...{ epochs, batchSize: 8, learningRate: long ? 1e-3 : 2e-3, rank: 8, warmup: 5 },
    targets: (process.env['PALIGEMMA_TARGETS'] ?? 'all').split(',')
  })
  const seconds = (performance.now() - begun) / 1000
  const after = await examine(heldOut, [adapter])
  if (long) {
    const [old, kept] = [await oldSkills([]), await oldSkills([adapter])]
    console.log({ count, epochs, seconds, before, after, first: losses[0], last: losses.at(-1), old, kept })
  }
  expect(losses.at(-1)).toBeLessThan(losses[0]! / 2)
  expect(after.answers).toBeGreaterThan(before.answers + 0.2)
})
