/** The command over the engine, in this process and as a child process. */
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import sharp from 'sharp'
import type { Context } from '../../lib/cli/context'
import { execute } from '../../lib/cli/program'
import { convert } from '../../lib/convert'
import type { Mask } from '../../lib/output/masks/mask'
import { reviveResults } from '../../lib/output/masks/mask-forms'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { golden, hasGolden } from '../support/golden'
import { writeSyntheticCheckpoint } from '../support/synthetic-checkpoint'

afterAll(removeTempDirs)

const root = join(__dirname, '..', '..')
const command = join(root, 'dist', 'cli', 'main.js')
const hf = (...parts: string[]) => golden('hf', ...parts)

async function paligemma(args: string[], terminal = false, signal = new AbortController().signal) {
  const out: string[] = []
  const err: string[] = []
  const context: Context = {
    stdout: { write: (text) => out.push(text), isTTY: terminal },
    stderr: { write: (text) => err.push(text) },
    signal
  }
  return { code: await execute(args, context), out: out.join(''), err: err.join(''), writes: out }
}

describe.skipIf(!hasGolden)('paligemma on a converted model', () => {
  let dir: string
  let model: string
  const image = hf('pg2-tiny', 'images', 'd.png')
  const other = hf('pg2-tiny', 'images', 'e.png')

  beforeAll(async () => {
    dir = tempDir()
    model = join(dir, 'pg2-tiny.gguf')
    await convert({
      source: hf('pg2-tiny'),
      out: model,
      type: 'f32',
      maskDecoder: golden('segment', 'vae-oid.random.npz')
    })
  })

  it.each(['pg1-tiny', 'pg2-tiny', 'pg2-tiny-sharded', 'pg2-k'])(
    "convert, then run --json: %s gives the reference's greedy tokens",
    async (name) => {
      const out = join(dir, `${name}-f32.gguf`)
      const converted = await paligemma(['convert', hf(name), '--out', out, '--type', 'f32', '--json'])
      expect(converted).toMatchObject({ code: 0, err: '' })
      expect(JSON.parse(converted.out)).toMatchObject({ path: out, type: 'F32' })
      const { cases } = JSON.parse(readFileSync(hf(name, 'expected.json'), 'utf8'))
      for (const item of cases.filter((one: { kind: string }) => one.kind === 'generate')) {
        const images = item.images.flatMap((file: string) => ['--image', hf(name, 'images', file)])
        const { code, out: text } = await paligemma([
          'run',
          '--model',
          out,
          ...images,
          '--prompt',
          item.prompt,
          '--max-tokens',
          '24',
          '--json',
          '--ignore-eos',
          '--attention-window',
          'suffix',
          '--kv-cache-type',
          'f32'
        ])
        expect(code).toBe(0)
        const result = JSON.parse(text)
        expect(
          result.tokens.map(({ id }: { id: number }) => id),
          item.name
        ).toEqual(item.greedy.tokens)
        expect(result).toMatchObject({ finishReason: 'length', usage: { completionTokens: 24 } })
      }
    }
  )

  it('run streams the text as it comes, then ends the line', async () => {
    const args = ['run', '-m', model, '-i', image, '-p', 'caption en', '-n', '12', '--ignore-eos']
    const { code, out, writes } = await paligemma(args)
    expect(code).toBe(0)
    expect(writes.length).toBeGreaterThan(5)
    expect(out).toBe(`${JSON.parse((await paligemma([...args, '--json'])).out).text}\n`)
  })

  it('run --annotate writes the picture in its own size, with boxes and masks of the text', async () => {
    const png = join(dir, 'annotated.png')
    const { code } = await paligemma([
      'run',
      '-m',
      model,
      '-i',
      image,
      '-p',
      'segment cat',
      '--constrain',
      'segment',
      '-n',
      '60',
      '--annotate',
      png
    ])
    expect(code).toBe(0)
    const [before, after] = await Promise.all(
      [image, png].map(async (file) => await sharp(file).removeAlpha().raw().toBuffer({ resolveWithObject: true }))
    )
    expect([after!.info.width, after!.info.height]).toEqual([before!.info.width, before!.info.height])
    expect(after!.data.equals(before!.data)).toBe(false)
  })

  it('task verbs print one JSON line per image when the output is no terminal', async () => {
    const { code, out } = await paligemma(['caption', '-m', model, hf('pg2-tiny', 'images', '*.png'), '-n', '3'])
    expect(code).toBe(0)
    const lines = out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(lines.map((line) => line.image)).toEqual(
      ['d', 'e', 'f'].map((name) => hf('pg2-tiny', 'images', `${name}.png`))
    )
    for (const line of lines) expect(typeof line.text).toBe('string')
  })

  it('on a terminal they print text, and --json is there for JSON', async () => {
    const args = ['ocr', '-m', model, image, '-n', '3']
    const json = JSON.parse((await paligemma([...args, '--json'], true)).out)
    expect((await paligemma(args, true)).out).toBe(`${json.text}\n`)
    expect((await paligemma([...args, other], true)).out.split('\n')[0]).toBe(`${image}: ${json.text}`)
  })

  it('answer sends the question', async () => {
    const { out } = await paligemma(['answer', '-m', model, '-q', 'how many cats?', image, '-n', '5'])
    const { out: direct } = await paligemma([
      'run',
      '-m',
      model,
      '-p',
      'answer en how many cats?',
      '-i',
      image,
      '-n',
      '5',
      '--json'
    ])
    expect(JSON.parse(out).text).toBe(JSON.parse(direct).text)
  })

  it('detect prints boxes of the labels and draws them', async () => {
    const png = join(dir, 'boxes.png')
    const { code, out } = await paligemma([
      'detect',
      '-m',
      model,
      image,
      '-l',
      'cat ; dog',
      '--max-objects',
      '2',
      '-n',
      '60',
      '--min-score',
      '0',
      '--annotate',
      png
    ])
    expect(code).toBe(0)
    const { detections } = JSON.parse(out)
    expect(detections.length).toBeGreaterThan(0)
    for (const { label, box, score } of detections) {
      expect(['cat', 'dog']).toContain(label)
      expect(box.width).toBeLessThanOrEqual(70)
      expect(score).toBeLessThanOrEqual(1)
    }
    expect((await sharp(png).metadata()).width).toBe((await sharp(image).metadata()).width)
  })

  it('segment prints masks of the whole image: run lengths, grey PNGs, none', async () => {
    const args = ['segment', '-m', model, image, '-l', 'cat', '--max-objects', '1', '-n', '60', '--min-score', '0']
    const first = async (...more: string[]) => {
      const { code, out } = await paligemma([...args, ...more])
      expect(code).toBe(0)
      return JSON.parse(out).segmentations[0]
    }
    const { width, height } = await sharp(image).metadata()
    const { mask, codes } = await first()
    expect(codes).toHaveLength(16)
    const runs = reviveResults('mask', mask) as Mask
    expect([runs.width, runs.height]).toEqual([width, height])
    const { mask: png } = await first('--masks', 'png')
    expect([png.width, png.height]).toEqual([width, height])
    const { data, info } = await sharp(Buffer.from(png.png, 'base64'))
      .toColourspace('b-w')
      .raw()
      .toBuffer({ resolveWithObject: true })
    expect(info.channels).toBe(1)
    expect(Buffer.compare(data, Buffer.from(runs.data))).toBe(0)
    expect(await first('--masks', 'none')).not.toHaveProperty('mask')
  })

  it('goes on after an image that fails, and ends with code 1', async () => {
    const { code, out, err } = await paligemma(['caption', '-m', model, 'missing.png', image, '-n', '3'])
    expect(code).toBe(1)
    expect(err).toMatch(/^ERR_IMAGE_INVALID: .*missing\.png/)
    const lines = out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(lines[0]).toMatchObject({ image: 'missing.png', error: { code: 'ERR_IMAGE_INVALID' } })
    expect(lines[1]).toMatchObject({ image, text: expect.any(String) })
  })

  it('options that the library refuses are wrong usage', async () => {
    const { code, err } = await paligemma(['run', '-m', model, '-i', image, '-p', 'x', '--temperature', '-1'])
    expect(code).toBe(2)
    expect(err).toMatch(/^ERR_INVALID_OPTION: .*temperature/)
    expect((await paligemma(['caption', '-m', join(dir, 'none.gguf'), image])).code).toBe(1)
  })

  it("score prints the reference's log-probabilities", async () => {
    const { cases } = JSON.parse(readFileSync(hf('pg2-tiny', 'expected.json'), 'utf8'))
    const item = cases.find((one: { kind: string }) => one.kind === 'score')
    const images = item.images.flatMap((file: string) => ['-i', hf('pg2-tiny', 'images', file)])
    const args = [
      'score',
      '-m',
      model,
      ...images,
      '-p',
      item.prompt,
      '-s',
      item.suffix,
      '--attention-window',
      'suffix',
      '--kv-cache-type',
      'f32'
    ]
    const { code, out } = await paligemma([...args, '--json'])
    expect(code).toBe(0)
    const { logProbs, total } = JSON.parse(out)
    expect(logProbs).toHaveLength(item.logprobs.length)
    for (const [i, value] of logProbs.entries()) expect(Math.abs(value - item.logprobs[i])).toBeLessThan(2e-3)
    expect((await paligemma(args)).out).toContain(`${total.toFixed(4)}  total`)
  })

  it('tokenize prints ids and characters', async () => {
    const { cases } = JSON.parse(readFileSync(hf('pg2-tiny', 'tokenizer_cases.json'), 'utf8'))
    const { text, ids } = cases.find((one: { text: string }) => one.text === 'caption en')
    const { code, out } = await paligemma(['tokenize', '-m', model, '--json', text])
    expect(code).toBe(0)
    const result = JSON.parse(out)
    expect(result.ids).toEqual(ids)
    expect(result.tokens.join('')).toBe(text)
    expect((await paligemma(['tokenize', '-m', model, text])).out.split('\n')[0]).toBe(
      `${String(ids[0]).padStart(7)}  ${JSON.stringify(result.tokens[0])}`
    )
  })

  it('inspect prints metadata and tensors', async () => {
    const { code, out } = await paligemma(['inspect', model, '--json'])
    expect(code).toBe(0)
    const info = JSON.parse(out)
    expect(info.architecture).toBe('gemma2')
    expect(info.metadata.find((entry: { key: string }) => entry.key === 'tokenizer.ggml.tokens')).toMatchObject({
      count: 2048
    })
    expect(info.tensors.find((tensor: { name: string }) => tensor.name === 'v.patch_embd.weight')).toMatchObject({
      type: 'F32',
      shape: [64, 3, 14, 14]
    })
    const text = (await paligemma(['inspect', model])).out
    expect(text).toContain('gemma2.attention.query_pre_attn_scalar (float32) = 24')
    expect(text).toMatch(/blk\.3\.ffn_down\.weight +F32 +\[96, 192\]/)
    const broken = join(dir, 'broken.gguf')
    writeFileSync(broken, readFileSync(model).subarray(0, 5000))
    expect(await paligemma(['inspect', broken])).toMatchObject({
      code: 1,
      err: expect.stringMatching(/^ERR_MODEL_INVALID: .*broken\.gguf/)
    })
  })

  it('an abort ends run with code 130', async () => {
    const { Interrupted } = await import('../../lib/cli/context')
    const controller = new AbortController()
    const promise = paligemma(
      ['run', '-m', model, '-i', image, '-p', 'x', '-n', '8000', '--ignore-eos'],
      false,
      controller.signal
    )
    setTimeout(() => controller.abort(new Interrupted()), 300)
    expect((await promise).code).toBe(130)
  })
})

describe.skipIf(!hasGolden)('the built command', () => {
  let dir: string
  beforeAll(() => {
    // Quick where dist/ is up to date.
    const built = spawnSync(process.execPath, [join(root, 'scripts', 'build.mjs'), '--ts'], { encoding: 'utf8' })
    expect(built.stderr + built.stdout, 'build').not.toContain('error TS')
    expect(existsSync(command)).toBe(true)
    dir = tempDir()
  })

  it('passes exit codes and streams on to the shell', () => {
    const run = (...args: string[]) => spawnSync(process.execPath, [command, ...args], { encoding: 'utf8' })
    expect(run('--help')).toMatchObject({ status: 0, stderr: '' })
    expect(run('run')).toMatchObject({ status: 2, stdout: '' })
    const failed = run('inspect', join(dir, 'none.gguf'))
    expect(failed).toMatchObject({ status: 1, stdout: '' })
    expect(failed.stderr).toMatch(/^ERR_MODEL_NOT_FOUND: /)
  })

  // 790 MB of weights with an embedding of full size; all of them zeros that take no space on the disk.
  it('converts with less than 400 MB of memory whatever the size', () => {
    const source = join(dir, 'large')
    const bytes = writeSyntheticCheckpoint(source, hf('pg2-tiny'), {
      vocab: 257216,
      hidden: 1280,
      ffn: 5120,
      layers: 3
    })
    expect(bytes).toBeGreaterThan(750e6)
    const preload = join(dir, 'report-memory.cjs')
    writeFileSync(
      preload,
      'process.on("exit", () => require("fs").writeSync(2, `peak ${process.resourceUsage().maxRSS} KB\\n`))'
    )
    const out = join(dir, 'large.gguf')
    const { status, stderr, stdout } = spawnSync(
      process.execPath,
      ['-r', preload, command, 'convert', source, '-o', out, '-t', 'q8_0', '--json'],
      { encoding: 'utf8' }
    )
    expect(status, stderr).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({ type: 'Q8_0' })
    const peak = Number(/peak (\d+) KB/.exec(stderr)![1]) * 1024
    expect(peak).toBeLessThan(400e6)
    rmSync(out)
  }, 120_000)

  it('Ctrl-C during convert leaves no file and ends with code 130', async () => {
    const folder = tempDir()
    const source = join(dir, 'large')
    if (!existsSync(source))
      writeSyntheticCheckpoint(source, hf('pg2-tiny'), { vocab: 257216, hidden: 1280, ffn: 5120, layers: 3 })
    const child = spawn(process.execPath, [command, 'convert', source, '-o', join(folder, 'x.gguf'), '-t', 'q6_k'], {
      stdio: 'ignore'
    })
    const ended = new Promise<number | null>((resolve) => child.on('exit', resolve))
    while (readdirSync(folder).length === 0 && child.exitCode === null)
      await new Promise((resolve) => setTimeout(resolve, 20))
    child.kill('SIGINT')
    expect(await ended).toBe(130)
    expect(readdirSync(folder)).toEqual([])
  })
})
