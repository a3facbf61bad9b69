/** `paligemma fit` over a tiny model: training, its files, resuming, and the checks of a dry run. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import sharp from 'sharp'
import { Interrupted } from '../../lib/cli/context'
import { execute } from '../../lib/cli/program'
import { drawing } from '../../lib/cli/learning/loss-curve'
import { loadModel } from '../../lib/index'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { writeTinyModel } from '../support/tiny-model'

let folder = ''
let model = ''

async function paligemma(args: string[], onErr: (text: string) => void = () => {}, stop = new AbortController()) {
  const out: string[] = []
  const err: string[] = []
  const stderr = {
    write: (text: string) => {
      err.push(text)
      onErr(text)
    },
    isTTY: true,
    columns: 120
  }
  const code = await execute(args, { stdout: { write: (text) => out.push(text) }, stderr, signal: stop.signal })
  return { code, out: out.join(''), err: err.join('') }
}

const data = (name: string, ...examples: object[]): string => {
  const file = join(folder, name)
  writeFileSync(file, examples.map((example) => JSON.stringify(example)).join('\n'))
  return file
}
const command = (...args: string[]): string[] => ['fit', '--model', model, '--threads', '2', ...args]

beforeAll(async () => {
  folder = tempDir()
  model = writeTinyModel({ seed: 4 })
  for (const [name, background] of Object.entries({ a: 'red', b: 'blue' }))
    await sharp({ create: { width: 40, height: 40, channels: 3, background } })
      .png()
      .toFile(join(folder, `${name}.png`))
  data('train.jsonl', ...['red', 'blue'].map((suffix, i) => ({ image: `${'ab'[i]}.png`, prefix: 'color', suffix })))
})
afterAll(removeTempDirs)

describe('paligemma fit', () => {
  it('trains an adapter that the other verbs take, with its curve', async () => {
    const out = join(folder, 'adapter')
    const train = join(folder, 'train.jsonl')
    const { code, out: text } = await paligemma(
      command(
        '--data',
        train,
        '--eval',
        train,
        '--out',
        out,
        '--steps',
        '6',
        '--rank',
        '2',
        '--learning-rate',
        '0.01',
        '--json'
      )
    )
    expect(code).toBe(0)
    const result = JSON.parse(text) as { losses: number[]; evaluation: unknown[]; rank: number }
    expect(result).toMatchObject({ rank: 2, alpha: 4 })
    expect(result.losses).toHaveLength(6)
    expect(result.losses.at(-1)).toBeLessThan(result.losses[0]!)
    expect(readFileSync(join(out, 'training-loss.csv'), 'utf8').trim().split('\n')).toHaveLength(7)
    expect(await sharp(join(out, 'training-loss.png')).metadata()).toMatchObject({ width: 800, format: 'png' })
    await using adapted = await loadModel({ model, adapters: [out] })
    expect(adapted.info.adapters[0]).toMatchObject({ rank: 2 })
    const file = join(folder, 'adapter.gguf')
    const plain = await paligemma(command('--data', train, '--out', file, '--steps', '1', '--target', 'q_proj'))
    expect(plain).toMatchObject({ code: 0 })
    expect(plain.out).toMatch(/adapter\.gguf: rank 8, \d+ values in \d+ matrices after 1 step, loss \d/)
    expect(existsSync(file)).toBe(true)
  }, 60_000)

  it('goes on with --resume after it was interrupted', async () => {
    const train = join(folder, 'train.jsonl')
    const args = ['--data', train, '--steps', '5', '--batch-size', '1', '--rank', '2', '--checkpoint-every', '1']
    const whole = await paligemma(command(...args, '--out', join(folder, 'whole'), '--json'))
    const stop = new AbortController()
    const out = join(folder, 'stopped')
    const stopped = await paligemma(
      command(...args, '--out', out),
      (text) => {
        if (text.includes('step 1 of 5')) stop.abort(new Interrupted())
      },
      stop
    )
    expect(stopped.code).toBe(130)
    expect(stopped.err).toMatch(/kept in .*checkpoint; --resume goes on/)
    const resumed = await paligemma(command(...args, '--out', out, '--resume', '--json'))
    expect(JSON.parse(resumed.out)).toMatchObject({ losses: (JSON.parse(whole.out) as { losses: number[] }).losses })
    const weights = (name: string): Buffer => readFileSync(join(folder, name, 'adapter_model.safetensors'))
    expect(weights('stopped').equals(weights('whole'))).toBe(true)
  }, 60_000)

  it('finds what is wrong with the data before it trains, and says what it would take', async () => {
    const bad = data(
      'bad.jsonl',
      { image: 'a.png', prefix: 'color', suffix: 'red' },
      { image: 'missing.png', prefix: 'color', suffix: 'red' },
      { image: 'a.png', prefix: 'color', suffix: '' },
      { image: 'a.png', prefix: 'color', suffix: '<loc0001><loc0002> cat' },
      { image: 'a.png', prefix: 'x'.repeat(20_000), suffix: 'red' }
    )
    const { code, out, err } = await paligemma(command('--data', bad, '--out', join(folder, 'none'), '--dry-run'))
    expect(code).toBe(2)
    expect(out).toMatch(/bad\.jsonl:2: .*missing\.png/)
    expect(out).toMatch(/bad\.jsonl:3: the suffix is empty/)
    expect(out).toMatch(/bad\.jsonl:4: 2 <loc> in a row/)
    expect(out).toMatch(/bad\.jsonl:5: has \d+ tokens, but the context has \d+/)
    expect(err).toContain('4 of 5 examples')
    expect(existsSync(join(folder, 'none'))).toBe(false)
    const good = await paligemma(
      command('--data', join(folder, 'train.jsonl'), '--out', join(folder, 'none'), '--dry-run', '--json')
    )
    expect(JSON.parse(good.out)).toMatchObject({ examples: 2, heldOut: 0, steps: 4, batchSize: 8 })
  }, 60_000)

  it('draws a curve of any length', () => {
    expect(drawing([2], [{ step: 1, loss: 3 }])).toContain('<circle')
    expect(drawing([2, 1, 0.5], [])).toMatch(/polyline.*polyline/)
  })
})
