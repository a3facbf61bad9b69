/** Training against the public reference implementation: losses, gradients, steps; see golden/fit/README.md. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ModelHost } from '../../lib/api/request/host'
import { Pictures } from '../../lib/api/fit/fit-pictures'
import { beginning, FitSession } from '../../lib/api/fit/fit-session'
import { convert } from '../../lib/convert'
import type { WithPaths } from '../../lib/base/validate'
import { native } from '../../lib/engine/native'
import { type FitOptions, loadModel, type LoadOptions } from '../../lib/index'
import { takeExamples } from '../../lib/train/examples'
import { golden, hasGoldens } from '../support/golden'
import { type FloatTensor, readSafetensors } from '../support/safetensors'

interface Step {
  loss: number
  grad_norm: number
  lr: number
}
interface Variant {
  steps: Step[]
  losses_after: number[]
  batch_losses: number[]
  grad_norm: number
  tolerances: Record<string, number>
}
interface Expected {
  main: Variant
  plain_run: Variant
  full_attention?: Variant
  uncapped?: Variant
}

const runs: Record<'main' | 'plain_run', FitOptions> = {
  main: {
    ...{ steps: 6, batchSize: 2, shuffle: false, learningRate: 1e-3 },
    ...{ warmup: 2, schedule: 'cosine', weightDecay: 0.01, clip: 1 }
  },
  plain_run: {
    ...{ steps: 6, batchSize: 2, shuffle: false, learningRate: 1e-3 },
    ...{ warmup: 0, schedule: 'constant', weightDecay: 0, clip: 0 }
  }
}

const folders = ['pg1-tiny', 'pg1-tiny-all', 'pg2-tiny'] as const
const scratch = mkdtempSync(join(tmpdir(), 'paligemma-fit-'))
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

const read = <T>(...path: string[]): T => JSON.parse(readFileSync(golden('fit', ...path), 'utf8')) as T

const norm = (values: Iterable<number>): number => {
  let sum = 0
  for (const value of values) sum += value * value
  return Math.sqrt(sum)
}
const differences = (a: Float32Array, b: Float32Array): number[] => Array.from(a, (value, i) => value - b[i]!)
const largest = (values: Iterable<number>): number => {
  let most = 0
  for (const value of values) most = Math.max(most, Math.abs(value))
  return most
}

describe.each(folders)('fit on %s', (folder) => {
  const known = hasGoldens(`fit/${folder}`, `hf/${folder.slice(0, 8)}`)
  const base = join(scratch, `${folder}.gguf`)
  const from = known ? golden('fit', folder) : ''
  let expected: Expected
  let tensors: Map<string, FloatTensor>
  let start: Map<string, FloatTensor>
  let examples: { images: string[]; prompt: string; response: string }[]

  beforeAll(async () => {
    if (!known) return
    expected = read(folder, 'expected.json')
    tensors = readSafetensors(golden('fit', folder, 'expected.safetensors'))
    start = readSafetensors(golden('fit', folder, 'adapter_model.safetensors'))
    const data = read<{ images: string; examples: { images: string[]; prompt: string; suffix: string }[] }>(
      folder,
      'examples.json'
    )
    examples = data.examples.map(({ images, prompt, suffix }) => ({
      images: images.map((name) => golden('fit', folder, ...data.images.split('/'), name)),
      prompt,
      response: suffix
    }))
    await convert({ source: golden('hf', folder.slice(0, 8)), out: base, type: 'F32' })
  })

  const load = (options: Partial<LoadOptions> = {}): LoadOptions => ({
    ...{ model: base, threads: 2, attentionWindow: 'suffix' },
    ...options
  })

  /** Tensors after a run against those of the reference, named with this in front. */
  function checkTensors(
    got: Map<string, FloatTensor>,
    prefix: string,
    { final_abs_max, final_abs_p999, final_abs_mean, update_rel_l2 }: Record<string, number>
  ): void {
    const off: number[] = []
    const moved: number[] = []
    for (const [name, before] of start) {
      const want = tensors.get(`${prefix}.${name}`)!
      expect(got.get(name)?.shape, name).toEqual(want.shape)
      off.push(...differences(got.get(name)!.data, want.data))
      moved.push(...differences(want.data, before.data))
    }
    expect(got.size).toBe(start.size)
    const sorted = off.map(Math.abs).sort((a, b) => a - b)
    if (final_abs_max !== undefined) expect(sorted.at(-1)).toBeLessThan(final_abs_max)
    if (final_abs_p999 !== undefined) expect(sorted[Math.floor(sorted.length * 0.999)]).toBeLessThan(final_abs_p999)
    if (final_abs_mean !== undefined)
      expect(sorted.reduce((sum, value) => sum + value, 0) / sorted.length).toBeLessThan(final_abs_mean)
    if (update_rel_l2 !== undefined) expect(norm(off) / norm(moved)).toBeLessThan(update_rel_l2)
  }

  async function checkRun(
    name: 'main' | 'plain_run',
    { steps, tolerances, losses_after }: Variant,
    prefix: string,
    options: Partial<LoadOptions> = {}
  ): Promise<void> {
    await using model = await loadModel(load(options))
    const norms: number[] = []
    const rates: number[] = []
    const { adapter, losses } = await model.fit(examples, {
      ...runs[name],
      from,
      onStep: ({ gradNorm, learningRate }) => {
        norms.push(gradNorm)
        rates.push(learningRate)
      }
    })
    for (const [i, step] of steps.entries()) {
      expect(Math.abs(losses[i]! - step.loss), `loss of step ${i}`).toBeLessThan(tolerances['step_loss_abs']!)
      expect(rates[i]).toBeCloseTo(step.lr, 12)
      if (tolerances['grad_norm_rel'] !== undefined)
        expect(Math.abs(norms[i]! / step.grad_norm - 1)).toBeLessThan(tolerances['grad_norm_rel'])
    }
    const out = join(scratch, `${folder}-${prefix}`)
    await adapter.save(out)
    checkTensors(readSafetensors(join(out, 'adapter_model.safetensors')), prefix, tolerances)
    // what comes out is what starts the next one
    const after = await model.fit(examples, { ...runs.plain_run, from: out, steps: 3 })
    expect(Math.abs(after.losses[0]! - losses_after[0]!)).toBeLessThan(tolerances['step_loss_abs']!)
  }

  it.skipIf(!known)('computes the gradients of every A and B', { timeout: 60_000 }, async () => {
    const { signal } = new AbortController()
    const host = await ModelHost.open(native(), load() as WithPaths<LoadOptions>)
    const { tolerances, batch_losses, grad_norm } = expected.main
    try {
      const opened = await beginning(host, { from })
      const session = await FitSession.begin(host, opened, undefined, signal)
      let [sum, count] = [0, 0]
      for await (const example of new Pictures(host, signal).ahead(
        await takeExamples('examples', examples.slice(0, 2))
      )) {
        const { loss, suffixTokens } = await session.example(example, { train: true })
        sum += loss
        count += suffixTokens
      }
      expect(Math.abs(sum / count - batch_losses[0]!)).toBeLessThan(tolerances['batch_loss_abs']!)
      const sums = new Map(
        [...(await session.read({ gradients: true }))]
          .filter(([name]) => name.endsWith('.gradient'))
          .map(([name, tensor]) => [name.slice(0, -9), tensor])
      )
      const all: number[] = []
      const wanted: number[] = []
      for (const [name, { data }] of opened.named(sums)) {
        const want = tensors.get(`grad.base_model.model.${name}.weight`)!.data
        const got = data.map((value) => value / count)
        const off = differences(got, want)
        expect(largest(off) / largest(want), name).toBeLessThan(tolerances['grad_max_abs_over_tensor_max']!)
        expect(norm(off) / norm(want), name).toBeLessThan(tolerances['grad_rel_l2_worst_tensor']!)
        all.push(...off)
        wanted.push(...want)
      }
      expect(wanted.length).toBe([...start.values()].reduce((n, { data }) => n + data.length, 0))
      expect(norm(all) / norm(wanted)).toBeLessThan(tolerances['grad_rel_l2_all']!)
      const update = await session.update({ step: 1, rate: 0, decay: 0, clip: 0 })
      expect(Math.abs(update / grad_norm - 1)).toBeLessThan(tolerances['grad_norm_rel']!)
      await session.end()
    } finally {
      await host.dispose()
    }
  })

  it.skipIf(!known)('takes the six steps of the main run', { timeout: 60_000 }, async () => {
    await checkRun('main', expected.main, 'final')
  })

  it.skipIf(!known)('takes the six steps of the plain run', { timeout: 60_000 }, async () => {
    await checkRun('plain_run', expected.plain_run, 'plain_run.final')
  })

  if (folder === 'pg2-tiny') {
    it.skipIf(!known)('trains without a window', { timeout: 60_000 }, async () => {
      await checkRun('main', expected.full_attention!, 'full_attention.final', { attentionWindow: 'none' })
    })

    it.skipIf(!known)('leaves the final soft cap out', { timeout: 60_000 }, async () => {
      await using model = await loadModel(load({ finalSoftcap: false }))
      const norms: number[] = []
      const { losses } = await model.fit(examples, {
        ...{ from, steps: 1, batchSize: 2, shuffle: false, clip: 0 },
        onStep: ({ gradNorm }) => norms.push(gradNorm)
      })
      const { batch_losses, grad_norm } = expected.uncapped!
      expect(Math.abs(losses[0]! - batch_losses[0]!)).toBeLessThan(expected.main.tolerances['batch_loss_abs']!)
      expect(Math.abs(norms[0]! / grad_norm - 1)).toBeLessThan(3e-4)
    })
  }
})
