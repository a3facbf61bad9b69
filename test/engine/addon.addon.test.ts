/** The addon's own surface: what it returns, and that no argument whatever crashes it. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import {
  native,
  type NativeBinding,
  type NativeEvent,
  type NativeModel,
  type NativeRequest
} from '../../lib/engine/native'
import { ggufBytes, maskDecoderShapes, tinyModel, tinyVocabulary, writeTinyModel } from '../support/tiny-model'

let addon: NativeBinding
let path = ''

beforeAll(() => {
  addon = native()
  path = writeTinyModel({ maskDecoder: true })
})

const size = 56
const pixels = () => new Uint8Array(size * size * 3).map((_, i) => (i * 7) % 256)
/** A value of the wrong type, on purpose. */
const wrong = (value: unknown) => value as never
const odd = [
  undefined,
  null,
  true,
  -1,
  0.5,
  NaN,
  Infinity,
  2 ** 53,
  'x',
  '',
  1n,
  Symbol('s'),
  {},
  [],
  [1],
  () => 1,
  new Uint8Array(3),
  new Float32Array(2),
  new Float64Array(2),
  new ArrayBuffer(8),
  new Date(),
  new Proxy({}, {}),
  /x/,
  new Array(4294967295)
]

/** Calls and awaits; the code it fails with, or undefined. Any other failure than an Error with a code is a bug. */
async function codeOf(call: () => unknown): Promise<string | undefined> {
  try {
    await call()
    return undefined
  } catch (error) {
    expect(error).toBeInstanceOf(Error)
    expect((error as { code?: string }).code).toMatch(/^ERR_[A-Z_]+$/)
    expect((error as { code?: string }).code).not.toBe('ERR_INTERNAL')
    return (error as { code: string }).code
  }
}

async function open(file = path): Promise<{
  model: NativeModel
  events: NativeEvent[]
  run: (request: Partial<NativeRequest>) => Promise<NativeEvent[]>
}> {
  const events: NativeEvent[] = []
  const waiting: { matches: (event: NativeEvent) => boolean; resolve: () => void }[] = []
  const model = new addon.Model({ path: file, threads: 2 }, (batch) => {
    events.push(...batch)
    for (const entry of [...waiting]) if (batch.some(entry.matches)) entry.resolve()
  })
  const until = (matches: (event: NativeEvent) => boolean) =>
    new Promise<void>((resolve) => waiting.push({ matches, resolve }))
  await until((event) => event.kind === 'ready' || event.kind === 'error')
  const run = async (request: Partial<NativeRequest>) => {
    const job = model.submit({
      kind: 'generate',
      images: [],
      prompt: 'caption en',
      maxTokens: 4,
      ignoreEos: true,
      ...request
    })
    await until((event) => event.job === job && (event.kind === 'end' || event.kind === 'error'))
    return events.filter((event) => event.job === job)
  }
  return { model, events, run }
}

describe('Model', () => {
  it('says what it loaded', async () => {
    const { model, events } = await open()
    expect(events[0]).toMatchObject({
      kind: 'ready',
      job: 0,
      info: {
        architecture: 'gemma2',
        name: 'tiny',
        imageSize: size,
        imageTokens: 16,
        textLayers: 2,
        textHidden: 64,
        hasVision: true,
        hasMaskDecoder: true,
        threads: 2
      }
    })
    model.dispose()
  })

  it('streams tokens, then the end with usage and timings', async () => {
    const { model, run } = await open()
    const events = await run({ images: [{ pixels: pixels() }], logProbs: 2 })
    expect(events.map((event) => event.kind)).toEqual(['token', 'token', 'token', 'token', 'end'])
    const first = events[0]
    if (first?.kind !== 'token') throw new Error('no token came')
    expect(first.token.logProb).toBeLessThanOrEqual(0)
    expect(first.token.top).toHaveLength(2)
    expect(first.token.top?.[0]).toEqual({
      id: first.token.id,
      text: first.token.tokenText,
      logProb: first.token.logProb
    })
    const end = events.at(-1)
    if (end?.kind !== 'end') throw new Error('no end came')
    expect(end.finishReason).toBe('length')
    expect(end.usage).toEqual({ imageTokens: 16, promptTokens: expect.any(Number), completionTokens: 4 })
    expect(Object.keys(end.timings).sort()).toEqual(['decodeMs', 'firstTokenMs', 'prefillMs', 'queueMs', 'visionMs'])
    model.dispose()
  })

  it('gives log-probabilities only where asked', async () => {
    const { model, run } = await open()
    const [token] = await run({})
    if (token?.kind !== 'token') throw new Error('no token came')
    expect(Object.keys(token.token).sort()).toEqual(['id', 'tokenText'])
    model.dispose()
  })

  it('takes an encoded image in place of its pixels, with the same tokens', async () => {
    const { model, run } = await open()
    const [encoded] = await run({ kind: 'encodeImage', images: [{ pixels: pixels() }], prompt: '' })
    if (encoded?.kind !== 'end') throw new Error('no end came')
    expect(encoded.embedding).toBeInstanceOf(Float32Array)
    expect(encoded.embedding).toHaveLength(16 * 64)
    const ids = (events: NativeEvent[]) => events.flatMap((event) => (event.kind === 'token' ? [event.token.id] : []))
    const fromPixels = ids(await run({ images: [{ pixels: pixels() }] }))
    expect(fromPixels).toHaveLength(4)
    expect(ids(await run({ images: [{ embedding: encoded.embedding! }] }))).toEqual(fromPixels)
    model.dispose()
  })

  it('copies pixels when they are submitted', async () => {
    const { model, run } = await open()
    const ids = (events: NativeEvent[]) =>
      events.flatMap((event) => (event.kind === 'token' ? [event.token.id, event.token.logProb] : []))
    const wanted = ids(await run({ images: [{ pixels: pixels() }], logProbs: 0 }))
    const mine = pixels()
    const later = run({ images: [{ pixels: mine }], logProbs: 0 })
    mine.fill(0)
    structuredClone(mine.buffer, { transfer: [mine.buffer] })
    expect(ids(await later)).toEqual(wanted)
    model.dispose()
  })

  it('scores a suffix token by token, eos last', async () => {
    const { model, run } = await open()
    const [end] = await run({ kind: 'score', suffix: 'cat' })
    if (end?.kind !== 'end') throw new Error('no end came')
    expect(end.scored?.map((token) => token.id)).toEqual([...model.tokenize('cat', false), 1])
    expect(end.scored?.every((token) => token.logProb! < 0)).toBe(true)
    model.dispose()
  })

  it('refuses wrong requests naming the option', async () => {
    const { model } = await open()
    const good: NativeRequest = { kind: 'generate', images: [], prompt: 'x' }
    const cases: [Partial<Record<keyof NativeRequest, unknown>>, string, RegExp][] = [
      [{ kind: 'train' }, 'ERR_INVALID_OPTION', /one of 'generate', .* for kind but received "train"/],
      [{ images: 'cow.jpg' }, 'ERR_INVALID_OPTION', /array for images/],
      [{ images: [{}] }, 'ERR_INVALID_OPTION', /either pixels or embedding in images\[0\]/],
      [
        { images: [{ pixels: new Uint8Array(5) }] },
        'ERR_IMAGE_INVALID',
        /images\[0\]\.pixels holds 5 bytes; this model takes 56 x 56/
      ],
      [{ images: [{ embedding: new Float32Array(5) }] }, 'ERR_IMAGE_INVALID', /images\[0\]\.embedding holds 5 values/],
      [
        { images: [{ pixels: [1, 2, 3] }] },
        'ERR_INVALID_OPTION',
        /Uint8Array for images\[0\]\.pixels but received an array/
      ],
      [{ images: new Array(100000).fill({ pixels: pixels() }) }, 'ERR_PROMPT_TOO_LONG', /100000 images of 16 tokens/],
      [{ kind: 'encodeImage' }, 'ERR_INVALID_OPTION', /one image for images but received 0/],
      [{ prompt: 5 }, 'ERR_INVALID_OPTION', /string for prompt but received 5/],
      [{ maxTokens: 0 }, 'ERR_INVALID_OPTION', /integer from 1 to 2147483647 for maxTokens but received 0/],
      [{ maxTokens: NaN }, 'ERR_INVALID_OPTION', /maxTokens but received NaN/],
      [{ temperature: -0.1 }, 'ERR_INVALID_OPTION', /temperature but received -0.1/],
      [{ topP: 1.5 }, 'ERR_INVALID_OPTION', /number from 0 to 1 for topP/],
      [{ seed: 2 ** 53 }, 'ERR_INVALID_OPTION', /seed/],
      [{ stop: ['a', ''] }, 'ERR_INVALID_OPTION', /non-empty string for stop\[1\]/],
      // eslint-disable-next-line no-sparse-arrays
      [{ stop: ['a', , 'b'] }, 'ERR_INVALID_OPTION', /string for stop\[1\] but received undefined/],
      [{ constraint: { kind: 'detect' } }, 'ERR_INVALID_OPTION', /array for constraint\.labels/]
    ]
    for (const [change, code, message] of cases) {
      expect(() => model.submit(wrong({ ...good, ...change }))).toThrow(
        expect.objectContaining({ code, message: expect.stringMatching(message) })
      )
    }
    model.dispose()
  })

  it('survives any value in any place', async () => {
    const { model, run } = await open()
    const keys = [
      'kind',
      'images',
      'prompt',
      'suffix',
      'allowControlTokens',
      'maxTokens',
      'temperature',
      'topK',
      'topP',
      'minP',
      'repeatPenalty',
      'seed',
      'logProbs',
      'stop',
      'ignoreEos',
      'constraint'
    ]
    for (const key of keys) {
      for (const value of odd) {
        await codeOf(() => {
          model.cancel(model.submit(wrong({ kind: 'generate', images: [], prompt: 'x', maxTokens: 2, [key]: value })))
        })
      }
    }
    for (const value of odd) {
      await codeOf(() => model.submit(wrong(value)))
      await codeOf(() => model.cancel(wrong(value)))
      await codeOf(() => model.tokenize(wrong(value), wrong(value)))
      await codeOf(() => model.detokenize(wrong(value)))
      await codeOf(() => model.decodeMask(wrong(value)))
      for (const image of [value, { pixels: value }, { embedding: value }])
        await codeOf(() => model.submit(wrong({ kind: 'generate', images: [image], prompt: 'x' })))
      await codeOf(() => new addon.Model(wrong(value), wrong(value)))
      await codeOf(() => new addon.Model({ path }, wrong(typeof value === 'function' ? 1 : value)))
      expect(() => model.tokenize.call(wrong(value), 'x', false)).toThrow() // V8's own TypeError
    }
    expect((await run({})).at(-1)?.kind).toBe('end')
    model.dispose()
  })

  it('lets exceptions of getters through', async () => {
    const { model } = await open()
    expect(() =>
      model.submit(
        wrong({
          get kind() {
            throw new RangeError('mine')
          }
        })
      )
    ).toThrow(new RangeError('mine'))
    model.dispose()
  })

  it('may be disposed by a getter of the request that it reads', async () => {
    const { model } = await open()
    const request = {
      kind: 'generate',
      images: [],
      get prompt() {
        model.dispose()
        return 'x'
      }
    }
    expect(await codeOf(() => model.submit(wrong(request)))).toBe('ERR_DISPOSED')
  })

  it('refuses load options naming them', () => {
    const cases: [object, RegExp][] = [
      [{ path: 5 }, /string for path but received 5/],
      [{ path: '' }, /path for path/],
      [{ path: 'a\0b' }, /path for path/],
      [{ path, threads: 0 }, /integer from 1 to 1024 for threads but received 0/],
      [{ path, device: 'npu' }, /one of 'auto', 'cpu', 'cuda', 'metal' for device/],
      [{ path, kvCacheType: 'f64' }, /kvCacheType/],
      [{ path, attentionWindow: true }, /attentionWindow but received true/],
      [
        { path, maskDecoder: { 'decoder.0.bias': { shape: [2], data: new Float32Array(3) } } },
        /maskDecoder\["decoder\.0\.bias"\]\.data holds 3 values, its shape 2/
      ]
    ]
    for (const [options, message] of cases) {
      expect(() => new addon.Model(wrong(options), () => {})).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringMatching(message) })
      )
    }
  })

  it('is a class of its own: no call without `new`, no methods on foreign objects', async () => {
    const call = addon.Model as unknown as (options: object, onEvents: () => void) => void
    expect(() => {
      call({ path }, () => {})
    }).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }))
    const tokenizer = await addon.openTokenizer(path)
    const { model } = await open()
    expect(() => model.tokenize.call(tokenizer as never, 'x', false)).toThrow('Illegal invocation')
    expect(() => tokenizer.encode.call(model as never, 'x', false)).toThrow(/not a tokenizer/)
    model.dispose()
  })
})

describe('openTokenizer', () => {
  it('encodes, decodes and shows pieces', async () => {
    const tokenizer = await addon.openTokenizer(path)
    const vocabulary = tinyVocabulary()
    expect(tokenizer.size).toBe(vocabulary.length)
    const ids = tokenizer.encode('caption en <loc0007>é', false)
    expect(ids.map((id) => tokenizer.pieceText(id))).toEqual(['caption', '▁en', '▁', '<loc0007>', '<0xC3>', '<0xA9>'])
    expect(tokenizer.decode(ids)).toBe('caption en <loc0007>é')
    expect([...tokenizer.pieceBytes(ids[4]!)]).toEqual([0xc3])
    expect(tokenizer.encode('<bos>', true)).toEqual([2])
    expect(tokenizer.encode('<bos>', false)).not.toContain(2)
  })

  it('survives any value', async () => {
    const tokenizer = await addon.openTokenizer(path)
    for (const value of odd) {
      await codeOf(() => addon.openTokenizer(wrong(value)))
      await codeOf(() => tokenizer.encode(wrong(value), wrong(value)))
      await codeOf(() => tokenizer.decode(wrong(value)))
      await codeOf(() => tokenizer.pieceBytes(wrong(value)))
      await codeOf(() => tokenizer.pieceText(wrong(value)))
    }
    expect(tokenizer.pieceText(2147483647)).toBe('')
    expect(tokenizer.decode([2147483647])).toBe('')
  })
})

describe('openMaskDecoder', () => {
  it('takes a file or tensors, with the same masks', async () => {
    const { tensors } = tinyModel({ maskDecoder: true })
    const source = Object.fromEntries(
      Object.keys(maskDecoderShapes).map((name) => {
        const { shape, data } = tensors.find((tensor) => tensor.name === `mask.${name}`)!
        return [name, { shape, data }]
      })
    )
    const codes = Array.from({ length: 16 }, (_, i) => i * 8)
    const fromFile = await (await addon.openMaskDecoder(path)).decode(codes)
    expect(fromFile).toHaveLength(64 * 64)
    expect(await (await addon.openMaskDecoder(source)).decode(codes)).toEqual(fromFile)
  })

  it('refuses codes that are none', async () => {
    const decoder = await addon.openMaskDecoder(path)
    for (const codes of [
      [],
      new Array(16),
      new Array(16).fill(128),
      new Array(15).fill(0),
      new Array(16).fill(0.5),
      'x'
    ]) {
      expect(await codeOf(() => decoder.decode(wrong(codes)))).toBe('ERR_INVALID_OPTION')
    }
    for (const value of odd) await codeOf(() => addon.openMaskDecoder(wrong(value)))
    expect(await codeOf(() => addon.openMaskDecoder({}))).toBe('ERR_MODEL_INVALID')
  })
})

describe('inspect and dequantizeTensor', () => {
  it('show metadata of every kind and the tensors in file order', async () => {
    const { metadata, tensors } = tinyModel()
    const file = await addon.inspect(path, 2)
    expect(file).toMatchObject({ version: 3, alignment: 32 })
    const entry = (key: string) => file.metadata.find((one) => one.key === key)
    expect(file.metadata.map((one) => one.key)).toEqual(Object.keys(metadata))
    expect(entry('clip.use_gelu')).toEqual({ key: 'clip.use_gelu', type: 'bool', value: true })
    expect(entry('gemma2.block_count')).toEqual({ key: 'gemma2.block_count', type: 'uint32', value: 2 })
    expect(entry('tokenizer.ggml.tokens')?.value).toEqual({
      arrayOf: 'string',
      count: tinyVocabulary().length,
      values: ['<pad>', '<eos>']
    })
    expect(file.tensors[0]).toMatchObject({
      name: 'token_embd.weight',
      type: 'F32',
      typeId: 0,
      shape: tensors[0]!.shape,
      bytes: tensors[0]!.data.byteLength
    })
    expect(file.tensors.slice(0, tensors.length).map((tensor) => tensor.name)).toEqual(
      tinyModel({ maskDecoder: true })
        .tensors.map((tensor) => tensor.name)
        .slice(0, tensors.length)
    )
    const all = await addon.inspect(path)
    expect(
      (all.metadata.find((one) => one.key === 'tokenizer.ggml.tokens')!.value as { values: string[] }).values
    ).toHaveLength(tinyVocabulary().length)
  })

  it('read a tensor as real numbers, outermost dimension first', async () => {
    const { tensors } = tinyModel()
    const { shape, data } = await addon.dequantizeTensor(path, 'v.patch_embd.weight')
    expect(shape).toEqual([64, 3, 14, 14])
    expect(data).toEqual(tensors.find((tensor) => tensor.name === 'v.patch_embd.weight')!.data)
    await expect(addon.dequantizeTensor(path, 'blk.99.x')).rejects.toMatchObject({
      code: 'ERR_MODEL_INVALID',
      message: expect.stringMatching(/blk\.99\.x/)
    })
  })

  it('keep 64-bit integers exact', async () => {
    const bytes = ggufBytes({ 'a.count': { type: 'uint32', value: 0 } }, [])
    // the same key as uint64: type 10, eight bytes
    const at = bytes.indexOf('a.count') + 'a.count'.length
    const wide = Buffer.concat([
      bytes.subarray(0, at),
      Buffer.from([10, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255]),
      Buffer.alloc(32)
    ])
    const file = join(writeTinyModel(), '..', 'wide.gguf')
    writeFileSync(file, wide)
    expect((await addon.inspect(file)).metadata).toEqual([{ key: 'a.count', type: 'uint64', value: 2n ** 64n - 1n }])
  })

  it('survive any value', async () => {
    for (const value of odd) {
      await codeOf(() => addon.inspect(wrong(value)))
      await codeOf(() => addon.inspect(path, wrong(value)))
      await codeOf(() => addon.dequantizeTensor(path, wrong(value)))
    }
    expect(await codeOf(() => addon.inspect('/does/not/exist'))).toBe('ERR_MODEL_NOT_FOUND')
  })
})

describe('quantizeRows', () => {
  const bytesOf = (values: Float32Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength)

  it('converts rows there and back, types in any case', async () => {
    const values = Float32Array.from({ length: 2 * 256 }, (_, i) => Math.sin(i))
    for (const type of ['f16', 'BF16', 'q8_0', 'Q4_K', 'iq4_nl']) {
      const packed = await addon.quantizeRows(bytesOf(values), 'F32', type, 256)
      const back = new Float32Array((await addon.quantizeRows(packed, type, 'f32', 256)).buffer)
      expect(back).toHaveLength(values.length)
      expect(Math.max(...values.map((value, i) => Math.abs(value - back[i]!)))).toBeLessThan(0.2)
    }
  })

  it('reads its input before it returns', async () => {
    const values = Float32Array.from({ length: 256 * 64 }, (_, i) => i % 100)
    const promise = addon.quantizeRows(bytesOf(values), 'f32', 'f32', 256)
    const other = addon.quantizeRows(bytesOf(values), 'f32', 'f16', 256)
    structuredClone(values.buffer, { transfer: [values.buffer] })
    expect(new Float32Array((await promise).buffer)[99]).toBe(99)
    expect(await other).toHaveLength(256 * 64 * 2)
  })

  it('gives results that can be transferred', async () => {
    const { buffer } = await addon.quantizeRows(new Uint8Array(1024), 'f32', 'f16', 256)
    expect(structuredClone(buffer, { transfer: [buffer as ArrayBuffer] }).byteLength).toBe(512)
    expect(buffer.byteLength).toBe(0)
  })

  it('refuses sizes that are no rows, types it does not know and wrong weights', async () => {
    const rows = new Uint8Array(1024)
    const cases: [unknown[], RegExp][] = [
      [[rows, 'f32', 'q4_k', 128], /multiple of 256 for cols but received 128/],
      [[rows, 'f32', 'q9_9', 256], /for to but received "q9_9"/],
      [[rows, 'i32', 'f32', 256], /for from/],
      [[rows.subarray(1), 'f32', 'f16', 256], /data holds 1023 bytes/],
      [[rows, 'f32', 'f16', 0], /cols/],
      [[rows, 'f32', 'q4_k', 256, new Float32Array(3)], /256 values for importance but received 3/],
      [[rows, 'f32', 'q4_k', 256, new Float32Array(256).fill(NaN)], /importance\[0\]/]
    ]
    for (const [args, message] of cases) {
      expect(() => addon.quantizeRows(...(args as Parameters<NativeBinding['quantizeRows']>))).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringMatching(message) })
      )
    }
    for (const value of odd) {
      await codeOf(() => addon.quantizeRows(wrong(value), 'f32', 'f16', 256))
      await codeOf(() => addon.quantizeRows(rows, wrong(value), 'f16', 256))
      await codeOf(() => addon.quantizeRows(rows, 'f32', wrong(value), 256))
      await codeOf(() => addon.quantizeRows(rows, 'f32', 'f16', wrong(value)))
      await codeOf(() => addon.quantizeRows(rows, 'f32', 'f16', 256, wrong(value)))
    }
    expect(await addon.quantizeRows(new Uint8Array(0), 'f32', 'f16', 256)).toHaveLength(0)
  })
})

describe('resize and pasteMask', () => {
  it('resize to a square and say where the picture lies in it', async () => {
    const { data, transform } = await addon.resize(new Uint8Array(4 * 2 * 3).fill(200), 4, 2, 8, 'bicubic', 'pad')
    expect(data).toHaveLength(8 * 8 * 3)
    expect(transform).toEqual({ scaleX: 2, scaleY: 2, offsetX: 0, offsetY: 2 })
    expect(() => addon.resize(new Uint8Array(5), 4, 2, 8, 'bicubic', 'pad')).toThrow(
      expect.objectContaining({ code: 'ERR_IMAGE_INVALID' })
    )
  })

  it('paste a mask into its box', async () => {
    const mask = new Float32Array(64 * 64).fill(1)
    const pasted = await addon.pasteMask(mask, { x0: 1, y0: 1, x1: 3, y1: 2 }, 4, 3, 'training')
    expect([...pasted]).toEqual([0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0, 0])
  })

  it('refuse what would take all memory', () => {
    const mask = new Float32Array(64 * 64)
    const box = { x0: 0, y0: 0, x1: 1, y1: 1 }
    expect(() => addon.pasteMask(mask, box, 1 << 20, 1 << 20, 'demo')).toThrow(
      expect.objectContaining({ code: 'ERR_IMAGE_TOO_LARGE' })
    )
    expect(() => addon.pasteMask(mask, { ...box, x1: 1 << 20, y1: 1 << 20 }, 9, 9, 'demo')).toThrow(
      expect.objectContaining({ code: 'ERR_IMAGE_TOO_LARGE' })
    )
  })

  it('survive any value and a mask that a getter of the box detaches', async () => {
    const box = { x0: 0, y0: 0, x1: 2, y1: 2 }
    for (const value of odd) {
      await codeOf(() => addon.resize(wrong(value), 1, 1, 1, 'bicubic', 'pad'))
      for (let at = 1; at < 6; at++) {
        const args: unknown[] = [new Uint8Array(3), 1, 1, 1, 'bicubic', 'pad']
        args[at] = value
        await codeOf(() => addon.resize(...(args as Parameters<NativeBinding['resize']>)))
      }
      for (let at = 0; at < 5; at++) {
        const args: unknown[] = [new Float32Array(4096), box, 2, 2, 'demo']
        args[at] = value
        await codeOf(() => addon.pasteMask(...(args as Parameters<NativeBinding['pasteMask']>)))
      }
      await codeOf(() => addon.pasteMask(new Float32Array(4096), { ...box, x1: wrong(value) }, 2, 2, 'demo'))
    }
    const mask = new Float32Array(4096).fill(1)
    const sly = {
      ...box,
      get x0() {
        structuredClone(mask.buffer, { transfer: [mask.buffer] })
        return 0
      }
    }
    expect([...(await addon.pasteMask(mask, sly, 2, 2, 'training'))]).toEqual([255, 255, 255, 255])
  })
})

describe('cpuInfo', () => {
  it('names an instruction set that is supported', () => {
    const info = addon.cpuInfo()
    expect(info.supported).toContain(info.isa)
    expect(info.supported).toContain('scalar')
    expect(info.threads).toBeGreaterThanOrEqual(1)
  })
})
