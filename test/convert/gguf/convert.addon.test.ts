/** GGUFs as sources: pairs merged into one file, types changed. */
import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { convert, fileTypeNames } from '../../../lib/convert'
import { layoutGguf, type Metadata } from '../../../lib/formats/gguf-writer'
import { quantize } from '../../../lib/convert/quantize'
import { inspectModel, loadMaskDecoder, loadModel } from '../../../lib/index'
import { native } from '../../../lib/engine/native'
import { readStructure } from '../../../lib/engine/structure'
import { readGguf, removeTempDirs, tempDir } from '../../support/convert-helpers'
import { golden, hasGolden } from '../../support/golden'

afterAll(removeTempDirs)

const hf = (name: string) => golden('hf', name)

interface Entry {
  name: string
  type: string
  shape: number[]
  bytes: Uint8Array
}
interface Contents {
  metadata: Metadata
  tensors: Entry[]
}

/** All of a file, to change and write again. */
async function contents(path: string): Promise<Contents> {
  const file = readFileSync(path)
  const { metadata, tensors } = await readStructure(path)
  return {
    metadata: metadata.map(({ key, type, value }) => [key, { type: 'copy', of: type, value }]),
    tensors: tensors.map(({ name, type, shape, offset, bytes }) => ({
      name,
      type,
      shape,
      bytes: file.subarray(offset, offset + bytes)
    }))
  }
}

async function write(path: string, { metadata, tensors }: Contents): Promise<string> {
  const { header, offsets, bytes } = await layoutGguf(metadata, tensors)
  const file = Buffer.alloc(bytes)
  header.copy(file)
  tensors.forEach((tensor, i) => file.set(tensor.bytes, offsets[i]))
  writeFileSync(path, file)
  return path
}

/** What llama.cpp's two converters make of a model: a text file, and a clip file with one of the projector's names. */
async function split(
  path: string,
  { projector = 'mm.input_projection', swapFfn = false } = {}
): Promise<{ text: string; vision: string }> {
  const { metadata, tensors } = await contents(path)
  const isVision = (name: string) => /^(?:v|mm|mask)\./.test(name)
  const swap: Record<string, string> = { ffn_up: 'ffn_down', ffn_down: 'ffn_up' }
  const dir = dirname(path)
  const text = await write(join(dir, 'text.gguf'), {
    metadata: metadata.filter(([key]) => !key.startsWith('clip.')),
    tensors: tensors.filter(({ name }) => !isVision(name))
  })
  const vision = await write(join(dir, 'mmproj.gguf'), {
    metadata: [
      ['general.architecture', { type: 'string', value: 'clip' }],
      ['general.name', { type: 'string', value: 'tower' }],
      ...metadata.filter(([key]) => key.startsWith('clip.'))
    ],
    tensors: tensors
      .filter(({ name }) => isVision(name))
      .map((tensor) => ({
        ...tensor,
        name: tensor.name
          .replace(/^mm\.0/, projector)
          .replace(/^(v\.blk\.\d+\.)(ffn_up|ffn_down)/, (_, layer, which) => layer + (swapFfn ? swap[which] : which))
      }))
  })
  return { text, vision }
}

async function base(name: string, type = 'f32'): Promise<string> {
  const out = join(tempDir(), `${name}.gguf`)
  await convert({ source: hf(name), out, type })
  return out
}

describe.skipIf(!hasGolden)('convert of a text GGUF and its vision GGUF', () => {
  it.each([
    ['mm.input_projection', false, 'f32'],
    ['mm.0', true, 'f32'],
    ['mm.input_projection', true, 'f16'],
    ['mm.0', false, 'q8_0']
  ])('projector as %s, ffn swapped: %s, %s: every tensor is copied bit for bit', async (projector, swapFfn, type) => {
    const whole = await base('pg2-tiny', type)
    const { text, vision } = await split(whole, { projector, swapFfn })
    const out = join(dirname(whole), 'merged.gguf')
    const result = await convert({ source: [vision, text], out })
    expect(result).toMatchObject({ type: 'as stored', notes: [] })
    const [expected, merged] = [readGguf(whole), readGguf(out)]
    expect(merged.order).toEqual(expected.order)
    for (const [name, tensor] of expected.tensors) {
      expect(merged.tensors.get(name)).toMatchObject({ type: tensor.type, shape: tensor.shape })
      expect(merged.tensors.get(name)!.bytes.equals(tensor.bytes), name).toBe(true)
    }
    expect(merged.metadata).toEqual(expected.metadata)
  })

  it("gives a model that generates the reference's tokens", async () => {
    const whole = await base('pg1-tiny')
    const { text, vision } = await split(whole, { swapFfn: true })
    const out = join(dirname(whole), 'merged.gguf')
    await convert({ source: [text, vision], out })
    const { cases } = JSON.parse(readFileSync(join(hf('pg1-tiny'), 'expected.json'), 'utf8'))
    const item = cases.find((one: { kind: string }) => one.kind === 'generate')
    await using model = await loadModel({ model: out, kvCacheType: 'f32' })
    const { tokens } = await model.generate({
      images: item.images.map((file: string) => join(hf('pg1-tiny'), 'images', file)),
      prompt: item.prompt,
      maxTokens: 24,
      ignoreEos: true
    })
    expect(tokens.map(({ id }) => id)).toEqual(item.greedy.tokens)
  })

  it('stores the merged model in another type if asked, exactly as a conversion from the checkpoint does', async () => {
    const whole = await base('pg2-k', 'bf16')
    const { text, vision } = await split(whole)
    const [merged, direct] = ['merged.gguf', 'direct.gguf'].map((name) => join(dirname(whole), name)) as [
      string,
      string
    ]
    await convert({ source: [text, vision], out: merged, type: 'q4_k_m' })
    await convert({ source: hf('pg2-k'), out: direct, type: 'q4_k_m' })
    sameTensors(merged, direct)
  })

  it('adds the mask decoder, also to a single file', async () => {
    const whole = await base('pg2-tiny')
    const out = join(dirname(whole), 'masked.gguf')
    const npz = golden('segment', 'vae-oid.random.npz')
    await convert({ source: whole, out, maskDecoder: npz })
    const codes = Array.from({ length: 16 }, (_, i) => i * 8)
    const [ours, theirs] = await Promise.all(
      [out, npz].map(async (path) => await (await loadMaskDecoder(path)).decode(codes))
    )
    const worst = ours!.reduce((most, value, i) => Math.max(most, Math.abs(value - theirs![i]!)), 0)
    // float16 weights
    expect(worst).toBeLessThan(0.01)
    // once more: replaced, not doubled
    const again = join(dirname(whole), 'again.gguf')
    await convert({ source: out, out: again, maskDecoder: npz })
    sameTensors(again, out)
  })

  it.each([
    [undefined, true],
    [true, true],
    [false, false]
  ])('a projector with 1/sqrt(hidden) folded in, unfoldProjector %s: unfolded %s', async (unfoldProjector, done) => {
    const whole = await base('pg2-tiny')
    const all = await contents(whole)
    const factor = Math.sqrt(96)
    for (const tensor of all.tensors) {
      if (!tensor.name.startsWith('mm.0.')) continue
      // far below any trained projector, and folded on top
      const scale = tensor.name.endsWith('weight') ? 0.05 / factor : 1 / factor
      tensor.bytes = new Uint8Array(
        new Float32Array(Uint8Array.from(tensor.bytes).buffer).map((value) => value * scale).buffer
      )
    }
    const folded = await write(join(dirname(whole), 'folded.gguf'), all)
    const out = join(dirname(whole), 'out.gguf')
    const { notes } = await convert({ source: folded, out, unfoldProjector })
    expect(notes.some((note) => note.includes('sqrt(96)'))).toBe(unfoldProjector === undefined)
    const bias = (path: string) =>
      new Float32Array(Uint8Array.from(readGguf(path).tensors.get('mm.0.bias')!.bytes).buffer)
    const [before, after] = [bias(folded), bias(out)]
    expect(
      after.every((value, i) => Math.abs(value - before[i]! * (done ? factor : 1)) <= 1e-6 * Math.abs(value))
    ).toBe(true)
  })
})

describe.skipIf(!hasGolden)('convert of GGUFs refuses', () => {
  let whole: string
  let files: { text: string; vision: string }
  beforeAll(async () => {
    whole = await base('pg2-tiny')
    files = await split(whole)
  })

  async function refused(source: string | string[], code: string, ...parts: string[]): Promise<void> {
    const out = join(tempDir(), 'x.gguf')
    const error = await convert({ source, out }).catch((reason) => reason)
    expect(error).toMatchObject({ name: 'PaliGemmaError', code })
    for (const part of parts) expect(error.message).toContain(part)
    expect(readdirSync(dirname(out))).toEqual([])
  }

  it('a text file alone, two text files, or a third one', async () => {
    await refused(files.text, 'ERR_MODEL_INVALID', files.text, 'no vision tensors')
    await refused([files.text, files.text], 'ERR_INVALID_OPTION', 'one text GGUF and its vision GGUF')
    await refused([files.vision], 'ERR_INVALID_OPTION', '(clip)')
    await refused([files.text, files.vision, whole], 'ERR_INVALID_OPTION', 'one or two GGUFs')
    await refused([files.text, hf('pg2-tiny')], 'ERR_INVALID_OPTION', 'one or two GGUFs')
  })

  it('tensors that are there twice, by name', async () => {
    await refused([whole, files.vision], 'ERR_MODEL_INVALID', 'twice', 'v.patch_embd.weight')
  })

  it('missing, unknown and misshapen tensors, by name, in one message', async () => {
    const { metadata, tensors } = await contents(files.vision)
    const broken = await write(join(tempDir(), 'broken.gguf'), {
      metadata,
      tensors: tensors.flatMap((tensor) => {
        if (tensor.name === 'v.blk.1.ln1.bias') return []
        if (tensor.name === 'v.blk.0.attn_q.bias') return [{ ...tensor, name: 'v.blk.0.attn_q_norm' }]
        if (tensor.name === 'v.post_ln.bias') return [{ ...tensor, shape: [32], bytes: tensor.bytes.subarray(0, 128) }]
        return [tensor]
      })
    })
    await refused(
      [files.text, broken],
      'ERR_MODEL_INVALID',
      'missing: v.blk.0.attn_q.bias, v.blk.1.ln1.bias',
      'unknown: v.blk.0.attn_q_norm',
      'wrong shape: v.post_ln.bias is [32] instead of [64]'
    )
  })

  it("a vision file of another model, by the projector's shape", async () => {
    const other = await split(await base('pg1-tiny'))
    await refused([files.text, other.vision], 'ERR_MODEL_INVALID', 'mm.0.weight is [64, 48] instead of [96, 48]')
  })

  it('another architecture, and metadata that lacks a size', async () => {
    const { metadata, tensors } = await contents(files.text)
    const llama = await write(join(tempDir(), 'llama.gguf'), {
      metadata: metadata.map(([key, value]) =>
        key === 'general.architecture' ? [key, { type: 'string', value: 'llama' }] : [key, value]
      ),
      tensors
    })
    await refused([llama, files.vision], 'ERR_MODEL_UNSUPPORTED', '"llama"')
    const bare = await write(join(tempDir(), 'bare.gguf'), {
      metadata: metadata.filter(([key]) => key !== 'gemma2.block_count'),
      tensors
    })
    await refused([bare, files.vision], 'ERR_MODEL_INVALID', bare, 'gemma2.block_count is missing')
  })
})

function sameTensors(a: string, b: string): void {
  const [one, other] = [readGguf(a), readGguf(b)]
  expect([...one.tensors.keys()]).toEqual([...other.tensors.keys()])
  for (const [name, tensor] of one.tensors) {
    expect(other.tensors.get(name), name).toMatchObject({ type: tensor.type, shape: tensor.shape })
    expect(other.tensors.get(name)!.bytes.equals(tensor.bytes), name).toBe(true)
  }
}

describe.skipIf(!hasGolden)('quantize', () => {
  let wide: string
  beforeAll(async () => {
    wide = await base('pg2-k', 'bf16')
  })

  it.each(fileTypeNames.filter((type) => type !== 'F32'))(
    '%s: gives what a conversion from the checkpoint gives',
    async (type) => {
      const [out, direct] = ['out.gguf', 'direct.gguf'].map((name) => join(tempDir(), name)) as [string, string]
      const result = await quantize({ source: wide, out, type })
      expect(result.type).toBe(type)
      await convert({ source: hf('pg2-k'), out: direct, type })
      sameTensors(out, direct)
      expect(readGguf(out).metadata).toEqual(readGguf(direct).metadata)
    }
  )

  it("pads SigLIP's feed-forward as convert does", async () => {
    const source = await base('pg2-tiny', 'f32')
    const [out, direct] = ['out.gguf', 'direct.gguf'].map((name) => join(dirname(source), name)) as [string, string]
    const result = await quantize({ source, out, type: 'q8_0' })
    expect(result.notes).toContain("SigLIP's feed-forward is padded with zeros to 256")
    await convert({ source: hf('pg2-tiny'), out: direct, type: 'q8_0' })
    sameTensors(out, direct)
    expect(readGguf(out).metadata.get('clip.vision.feed_forward_length')).toBe(256)
    // and again: padded already
    const again = join(dirname(source), 'again.gguf')
    expect((await quantize({ source: out, out: again, type: 'q4_0' })).notes.join()).not.toContain('padded')
  })

  it('works on a text or vision file alone', async () => {
    const { text, vision } = await split(await base('pg2-k', 'bf16'))
    for (const [source, name, type] of [
      [text, 'blk.0.attn_q.weight', 'Q4_K'],
      [vision, 'v.blk.0.attn_q.weight', 'Q8_0']
    ] as const) {
      const out = join(tempDir(), 'out.gguf')
      await quantize({ source, out, type: 'q4_k_s' })
      expect((await inspectModel(out, { maxArray: 0 })).tensors.find((tensor) => tensor.name === name)).toMatchObject({
        type
      })
    }
  })

  it('dequantizes: from Q4_K to F32 the values stay the same', async () => {
    const [small, plain] = ['small.gguf', 'plain.gguf'].map((name) => join(tempDir(), name)) as [string, string]
    await quantize({ source: wide, out: small, type: 'q4_k_s' })
    const { notes } = await quantize({ source: small, out: plain, type: 'f32' })
    expect(notes.join()).toContain('quantized before')
    const name = 'blk.1.ffn_up.weight'
    const [a, b] = await Promise.all(
      [small, plain].map(async (path) => (await native().dequantizeTensor(path, name)).data)
    )
    expect(b).toEqual(a)
    expect((await inspectModel(plain, { maxArray: 0 })).tensors.find((tensor) => tensor.name === name)!.type).toBe(
      'F32'
    )
  })

  it('copies metadata of every type and tensors it does not know', async () => {
    for (const name of ['meta.gguf', 'meta_nested.gguf', 'meta_v2.gguf']) {
      const source = golden('gguf', name)
      const out = join(tempDir(), 'out.gguf')
      await quantize({ source, out, type: 'q4_0' })
      const [before, after] = [await contents(source), await contents(out)]
      const own = ['general.alignment', 'general.file_type', 'general.quantization_version']
      const others = ({ metadata }: Contents) => metadata.filter(([key]) => !own.includes(key))
      expect(others(after)).toEqual(others(before))
      expect(
        after.tensors.map(({ name, type, shape, bytes }) => ({ name, type, shape, bytes: Buffer.from(bytes) }))
      ).toEqual(
        before.tensors.map(({ name, type, shape, bytes }) => ({ name, type, shape, bytes: Buffer.from(bytes) }))
      )
    }
  })

  it('refuses to overwrite its source, unknown types and what is no GGUF', async () => {
    await expect(quantize({ source: wide, out: wide, type: 'q8_0' })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION'
    })
    await expect(quantize({ source: wide, out: join(tempDir(), 'x'), type: 'q9' })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION'
    })
    await expect(
      quantize({ source: golden('hf', 'pg1-tiny', 'config.json'), out: join(tempDir(), 'x'), type: 'q8_0' })
    ).rejects.toMatchObject({ code: 'ERR_MODEL_INVALID' })
    await expect(
      quantize({ source: join(tempDir(), 'no.gguf'), out: join(tempDir(), 'x'), type: 'q8_0' })
    ).rejects.toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' })
  })

  it("rejects with the signal's reason and leaves no file", async () => {
    const controller = new AbortController()
    const out = join(tempDir(), 'x.gguf')
    const running = quantize({
      source: wide,
      out,
      type: 'q4_k_m',
      signal: controller.signal,
      onProgress: () => {
        controller.abort(new Error('enough'))
      }
    })
    await expect(running).rejects.toThrow('enough')
    expect(readdirSync(dirname(out))).toEqual([])
  })
})
