/** What jobs may be, before and after Redis. */
import { describe, expect, it } from 'vitest'
import { PaliGemmaError } from '../../lib/base/errors'
import { resultFields } from '../../lib/api/many/rows'
import { createQueue, startWorker } from '../../lib/queue'
import { placeOf } from '../../lib/queue/connection'
import { bullId, isFinal, parseFailure, readJob, revived, takeJob } from '../../lib/queue/jobs'

describe('a job', () => {
  it('has a name made of what is to be done', () => {
    const job = { task: 'detect' as const, image: 'a.jpg', options: { labels: ['cow'], maxTokens: undefined } }
    const { data } = takeJob('job', job)
    expect(data).toEqual({
      id: expect.stringMatching(/^[0-9a-f]{40}$/),
      task: 'detect',
      image: 'a.jpg',
      options: { labels: ['cow'] }
    }) // prettier-ignore
    expect(takeJob('job', { ...job, priority: 3 }).data.id).toBe(data.id)
    expect(takeJob('job', { ...job, image: 'b.jpg' }).data.id).not.toBe(data.id)
    expect(takeJob('job', { ...job, image: Buffer.from('x') }).data.id).not.toBe(data.id)
    expect(takeJob('job', { ...job, image: new URL('https://a/b.jpg') }).data.image).toBe('https://a/b.jpg')
    expect(readJob(data)).toEqual(data)
    expect([bullId('a-1'), bullId('17'), bullId('a:b')]).toEqual([
      'a-1',
      expect.stringMatching(/^h-/),
      expect.stringMatching(/^h-/)
    ])
  })

  it.each([
    [{ image: 'a' }, /for job\.task/],
    [{ task: 'paint', image: 'a' }, /for job\.task/],
    [{ task: 'ocr' }, /path, URL or encoded bytes of at most 8 MiB for job\.image/],
    [{ task: 'ocr', image: Buffer.alloc((8 << 20) + 1) }, /for job\.image/],
    [{ task: 'ocr', image: 'a', options: { labels: 'cow' } }, /Unknown option "labels" for a ocr job/],
    [{ task: 'ocr', image: 'a', options: { maxTokens: 0 } }, /for maxTokens/],
    [{ task: 'ocr', image: 'a', options: { onToken: () => {} } }, /Unknown option "onToken"/],
    [{ task: 'ocr', image: 'a', priority: 0 }, /for job\.priority/],
    [{ task: 'ocr', image: 'a', delayMs: -1 }, /for job\.delayMs/],
    [{ task: 'ocr', image: 'a', id: '' }, /for job\.id/],
    [null, /a job/]
  ])('is refused: %j', (job, message) => {
    expect(() => takeJob('job', job)).toThrow(message)
  })

  it('from elsewhere is looked at again', () => {
    for (const data of [null, {}, { id: 'a', task: 'paint', options: {} }, { id: 'a', task: 'ocr', options: 1 }])
      expect(() => readJob(data)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }))
  })

  it('fails for good or may be tried again', () => {
    const data = { id: 'a', task: 'ocr' as const, image: 'a.jpg', options: {} }
    const of = (code: 'ERR_IMAGE_INVALID' | 'ERR_OUT_OF_MEMORY' | 'ERR_PROMPT_TOO_LONG') =>
      new PaliGemmaError(code, 'x')
    expect(isFinal(of('ERR_IMAGE_INVALID'), data)).toBe(true)
    expect(isFinal(of('ERR_IMAGE_INVALID'), { ...data, image: 'https://a/b' })).toBe(false)
    expect(isFinal(of('ERR_PROMPT_TOO_LONG'), data)).toBe(true)
    expect(isFinal(of('ERR_OUT_OF_MEMORY'), data)).toBe(false)
    expect(isFinal(new Error('x'), data)).toBe(false)
    expect(parseFailure('ERR_IMAGE_INVALID: a: b\nc')).toEqual({ code: 'ERR_IMAGE_INVALID', message: 'a: b\nc' })
    expect(parseFailure('job stalled more than allowable limit').code).toBe('ERR_INTERNAL')
  })

  it('gives vectors and other results through JSON', () => {
    const vectors = { data: Float32Array.of(1, -2), tokens: 1, dims: 2, imageTokens: 4 }
    expect(revived(resultFields('embedImage', vectors))).toEqual({ data: vectors.data, tokens: 1, dims: 2 })
    expect(resultFields('score', { total: -1 })).toEqual({ result: { total: -1 } })
    expect(resultFields('ocr', 'text')).toEqual({ text: 'text' })
  })
})

describe('a queue', () => {
  it.each([
    [{}, /for redis/],
    [{ redis: 'http://localhost' }, /redis: or rediss: URL, or options or a client of ioredis for redis/],
    [{ redis: 'redis://a', name: 'a:b' }, /without ":" for name/],
    [{ redis: 'redis://a', attempts: 0 }, /for attempts/],
    [{ redis: 'redis://a', attempt: 1 }, /Unknown option "attempt"/]
  ])('is refused: %j', async (options, message) => {
    await expect(createQueue(options as never)).rejects.toThrow(message)
  })

  it('refuses a text of a million letters as rate', async () => {
    const options = { redis: 'redis://127.0.0.1:1', model: 'demo', rate: 'y'.repeat(1 << 20) }
    await expect(startWorker(options as never)).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('for rate') as string
    })
  })

  it('says where Redis does not answer, without the password', { tags: ['slow'] }, async () => {
    const redis = 'redis://user:secret@127.0.0.1:1/2'
    await expect(createQueue({ redis, connectTimeoutMs: 200 })).rejects.toMatchObject({
      code: 'ERR_DOWNLOAD_FAILED',
      message: expect.stringMatching(
        /^redis:\/\/127\.0\.0\.1:1\/2 did not answer within 200 ms: .*ECONNREFUSED/
      ) as string
    })
    expect(placeOf(redis)).not.toContain('secret')
  })
})
