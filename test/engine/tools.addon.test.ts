/** The tools that need no model: what they add to the engine's functions, and their errors. */
import { rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { loadMaskDecoder, loadTokenizer, preprocessImage, type Tokenizer } from '../../lib/index'
import { writeTinyModel } from '../support/tiny-model'

describe('Tokenizer', () => {
  let path: string
  let tokenizer: Tokenizer
  beforeAll(async () => {
    path = writeTinyModel()
    tokenizer = await loadTokenizer(path)
  })
  afterAll(() => rmSync(dirname(path), { recursive: true, force: true }))

  it('turns the names of control tokens into ids only when asked to', () => {
    expect(tokenizer.encode('<bos>', { allowControlTokens: true })).toEqual([2])
    expect(tokenizer.encode('<bos>')).not.toContain(2)
    expect(tokenizer.decode(tokenizer.encode('<bos>'))).toBe('<bos>')
    expect(tokenizer.encode('<loc0007><seg127>').map((id) => tokenizer.piece(id))).toEqual(['<loc0007>', '<seg127>'])
    expect(tokenizer.piece(2 ** 30)).toBe('')
    expect(tokenizer.size).toBeGreaterThan(1400)
  })

  it('streams never show half a character', () => {
    const ids = tokenizer.encode('é😀')
    const stream = tokenizer.stream()
    const shown = ids.map((id) => stream.push(id))
    expect(shown.filter((text) => text !== '')).toEqual(['é', '😀'])
    expect(stream.flush()).toBe('')
    stream.push(tokenizer.encode('é')[0]!)
    expect([stream.flush(), stream.flush()]).toEqual(['\ufffd', ''])
  })

  it('checks its arguments', async () => {
    expect(() => tokenizer.encode(5 as never)).toThrow(
      /^Expected string of at most 1048576 characters .*for text but received 5/
    )
    expect(() => tokenizer.encode('', { control: true } as never)).toThrow(/Unknown option "control" for encode/)
    expect(() => tokenizer.decode([-1])).toThrow(/for ids but received \[-1\]/)
    expect(() => tokenizer.stream().push(0.5)).toThrow(/for id but received 0.5/)
    await expect(loadTokenizer(join(dirname(path), 'none.gguf'))).rejects.toMatchObject({
      name: 'PaliGemmaError',
      code: 'ERR_MODEL_NOT_FOUND'
    })
    await expect(loadTokenizer(__filename)).rejects.toMatchObject({ name: 'PaliGemmaError', code: 'ERR_MODEL_INVALID' })
    await expect(loadTokenizer('')).rejects.toThrow(
      'Expected path, file: URL or name of a pulled model for path but received ""'
    )
  })
})

describe('loadMaskDecoder', () => {
  it('reads the decoder of a GGUF, and explains wrong codes and files', async () => {
    const path = writeTinyModel({ maskDecoder: true })
    const plain = writeTinyModel()
    try {
      const decoder = await loadMaskDecoder(path)
      const mask = await decoder.decode(Array.from({ length: 16 }, (_, i) => i))
      expect(mask).toHaveLength(4096)
      expect(mask.every(Number.isFinite)).toBe(true)
      await expect(decoder.decode([1, 2])).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: 'Expected 16 integers from 0 to 127 for codes but received [1, 2]'
      })
      await expect(loadMaskDecoder(plain)).rejects.toMatchObject({
        name: 'PaliGemmaError',
        message: expect.stringContaining(plain) as unknown
      })
      await expect(loadMaskDecoder(join(dirname(path), 'none.npz'))).rejects.toMatchObject({
        name: 'PaliGemmaError',
        code: 'ERR_MODEL_NOT_FOUND'
      })
      await expect(loadMaskDecoder(__filename)).rejects.toMatchObject({
        name: 'PaliGemmaError',
        code: 'ERR_MODEL_INVALID'
      })
    } finally {
      for (const file of [path, plain]) rmSync(dirname(file), { recursive: true, force: true })
    }
  })
})

describe('preprocessImage', () => {
  it('checks its options and gives image errors', async () => {
    await expect(preprocessImage('x.png', { size: 0 })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: 'Expected integer from 1 to 16384 for size but received 0'
    })
    await expect(preprocessImage('x.png', {} as never)).rejects.toThrow('for size but received undefined')
    await expect(preprocessImage('/none.png', { size: 8 })).rejects.toMatchObject({ code: 'ERR_IMAGE_INVALID' })
    await expect(
      preprocessImage({ data: new Float32Array(4), tokens: 2, hidden: 2 }, { size: 8 })
    ).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    await expect(preprocessImage('x.png', { size: 8, signal: AbortSignal.abort('no') })).rejects.toBe('no')
  })

  it('a burst of pictures does not pile up decoded ones', async () => {
    // 48 MB decoded each; all at once would be 1.5 GB
    const large = await sharp({ create: { width: 4000, height: 4000, channels: 3, background: '#abcdef' } })
      .png({ compressionLevel: 1 })
      .toBuffer()
    const before = process.memoryUsage().rss
    let peak = 0
    const timer = setInterval(() => {
      peak = Math.max(peak, process.memoryUsage().rss)
    }, 5)
    const results = await Promise.all(
      Array.from({ length: 32 }, async () => await preprocessImage(large, { size: 28 }))
    )
    clearInterval(timer)
    expect(results.every(({ data }) => data[0] === 0xab && data[1] === 0xcd && data[2] === 0xef)).toBe(true)
    expect((peak - before) / 2 ** 20).toBeLessThan(700)
  })
})
