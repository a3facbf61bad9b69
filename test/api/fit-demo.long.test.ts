/** The demo model learns what it has never seen: moons, their places and colours; what it knew it keeps. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { loadModel, prompts, quantizeModel } from '../../lib/index'
import type { FitExample, PaliGemma, QuantizeOptions, TrainedAdapter } from '../../lib/index'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { drawMoon, lessons, type Moon, overlap } from '../support/moons'

// PALIGEMMA_TEACH=64,6,30: examples, epochs and held-out pictures of a longer run, which also judges old skills, and
// how they are kept with PALIGEMMA_REHEARSE=DIR, 200 pictures of draw_eval.py;
// PALIGEMMA_TEACH_TYPE=Q4_K: over a copy of the demo model in that type. Needs a build, since it calls scripts.
const [count = 64, epochs = 12, held = 16] = (process.env['PALIGEMMA_TEACH'] ?? '')
  .split(',')
  .filter(Boolean)
  .map(Number)
const long = process.env['PALIGEMMA_TEACH'] !== undefined
const rehearsed = process.env['PALIGEMMA_REHEARSE']
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
  text?: string
}
const judged = join(root, 'test', 'fixtures', 'demo-eval')
const scenesOf = (folder: string): Scene[] => JSON.parse(readFileSync(join(folder, 'truth.json'), 'utf8')) as Scene[]

/** What it can do, as its own answers about other pictures: taught along, they keep it from forgetting. */
async function rehearsal(folder: string): Promise<FitExample[]> {
  const examples: FitExample[] = []
  for (const [i, { file, detect, segment, questions, text }] of scenesOf(folder).slice(0, 200).entries()) {
    const image = join(folder, file)
    const known = [prompts.caption(), prompts.detect(detect), prompts.segment(segment)]
    known.push(...questions.map(({ question }) => prompts.answer(question)), ...(text ? [prompts.ocr()] : []))
    // three a picture, each kind in turn
    for (let k = 0; k < 3; k++) {
      const prompt = known[(3 * i + k) % known.length]!
      examples.push({ image, prompt, response: (await model.generate({ image, prompt, maxTokens: 200 })).text })
    }
  }
  return examples.filter(({ response }) => response !== '')
}

/** What it could do before: everything that demo/README.md counts. */
async function oldSkills(adapters: TrainedAdapter[]): Promise<number> {
  const script = '../../scripts/demo-model/evaluate.mjs'
  const { evaluate } = (await import(script)) as { evaluate: (...args: unknown[]) => Promise<Record<string, number>> }
  await using trained = await loadModel({ model: path, threads: 2, adapters })
  const scores = await evaluate(trained, scenesOf(judged), judged)
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

it('learns moons from a few dozen examples', { timeout: 1_800_000 }, async () => {
  const heldOut = Array.from({ length: held }, (_, i) => drawMoon(5000 + i))
  const before = await examine(heldOut, [])
  expect(before.answers).toBeLessThan(0.6)
  const taught = Array.from({ length: count }, (_, i) => lessons(drawMoon(i))[i % 3]!)
  // so that what is new is a quarter of what is practised
  const data = rehearsed ? [...taught, ...taught, ...taught, ...(await rehearsal(rehearsed))] : taught
  const [begun, cpu] = [performance.now(), process.cpuUsage()]
  const { adapter, losses } = await model.fit(data, {
    ...{ epochs, batchSize: 8, learningRate: rehearsed ? 1e-3 : 2e-3, rank: 8, warmup: 5 },
    targets: (process.env['PALIGEMMA_TARGETS'] ?? 'all').split(',')
  })
  const [seconds, { user, system }] = [(performance.now() - begun) / 1000, process.cpuUsage(cpu)]
  const after = await examine(heldOut, [adapter])
  expect(losses.at(-1)).toBeLessThan(losses[0]! / 2)
  expect(after.answers).toBeGreaterThan(before.answers + 0.2)
  if (!long) return
  const [old, kept] = [await oldSkills([]), await oldSkills([adapter])]
  const cpuSeconds = (user + system) / 1e6
  console.log({ examples: data.length, epochs, seconds, cpuSeconds, before, after, old, kept, share: kept / old })
  if (!rehearsed) return
  expect(after.answers).toBeGreaterThanOrEqual(0.9)
  expect(after.recall).toBeGreaterThanOrEqual(0.8)
  expect(kept / old).toBeGreaterThanOrEqual(0.97)
})
