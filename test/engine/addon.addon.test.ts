/** The addon's own surface besides the model: what it returns, and that no argument whatever crashes it. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { native, type NativeBinding } from '../../lib/engine/native'
import { readStructure } from '../../lib/engine/structure'
import { ggufBytes, maskDecoderShapes, tinyModel, tinyVocabulary, writeTinyModel } from '../support/tiny-model'
import { wrong, odd, codeOf } from '../support/odd-values'

let addon: NativeBinding
let path = ''

beforeAll(() => {
  addon = native()
  path = writeTinyModel({ maskDecoder: true })
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
    const file = await readStructure(path, 2, addon)
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
    const all = await readStructure(path, undefined, addon)
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
    expect((await readStructure(file, undefined, addon)).metadata).toEqual([
      { key: 'a.count', type: 'uint64', value: 2n ** 64n - 1n }
    ])
  })

  it('survive any value', async () => {
    for (const value of odd) {
      await codeOf(() => addon.inspect(wrong(value)))
      const file = await addon.inspect(path)
      await codeOf(() => file.metadata(wrong(value), wrong(value)))
      await codeOf(() => file.tensors(wrong(value), wrong(value)))
      await codeOf(() => file.values(wrong(value), wrong(value), wrong(value)))
      await codeOf(() => file.tensors.call(wrong(value), 0, 1))
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
