/**
 * When a source that stops is tried again, and when that is the end.
 * @module-tag alone
 */
import { Readable } from 'node:stream'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { Latest } from '../../lib/video/latest'
import { pump, type LiveFrame, type LiveOptions } from '../../lib/video/live'

let opened = 0
let before: string[] | undefined

// One picture, then nothing until whoever waits gives up.
vi.mock('../../lib/video/decode', () => ({
  async *decodeFrames(video: { before?: string[] }, { signal }: { signal: AbortSignal }) {
    opened++
    before = video.before
    yield { image: { data: new Uint8Array(3), width: 1, height: 1 }, time: 0 }
    await new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason as Error)))
  }
}))

beforeEach(() => {
  opened = 0
  before = undefined
})

async function pumped(
  source: string,
  signal: AbortSignal,
  more: Partial<LiveOptions> = {}
): Promise<Error | undefined> {
  const latest = new Latest<LiveFrame>()
  const options: LiveOptions = { stallSeconds: 0.3, minInterval: 0, folder: '/', signal, ...more }
  const done = pump(source, latest, options)
  try {
    const never = new AbortController().signal
    while (await latest.next(never));
  } catch (error) {
    return error as Error
  } finally {
    await done
  }
  return undefined
}

describe('a source that gives no picture any more', () => {
  // of JPEGs ffmpeg must not wait for a hundred to know their pace
  it.each([
    [
      [0xff, 0xd8, 0xff],
      ['-f', 'mjpeg', '-probesize', '32']
    ],
    [[0x47, 0x40], []]
  ])('ends where it is standard input, which cannot be opened again', async (bytes, wanted) => {
    const input = Readable.from([Buffer.from(bytes)])
    vi.spyOn(process, 'stdin', 'get').mockReturnValue(input as never)
    const error = await pumped('-', new AbortController().signal)
    expect(error).toMatchObject({ code: 'ERR_IMAGE_INVALID', message: 'standard input: no picture for 0.3 s' })
    expect(opened).toBe(1)
    expect(before).toEqual(wanted)
    expect(input.read()).toEqual(Buffer.from(bytes)) // nothing of it is lost
  })

  it('ends where standard input never says anything', async () => {
    vi.spyOn(process, 'stdin', 'get').mockReturnValue(new Readable({ read() {} }) as never)
    const error = await pumped('-', new AbortController().signal)
    expect(error).toMatchObject({ message: 'standard input: no picture for 0.3 s' })
    expect(opened).toBe(0)
  })

  it('is opened again where it is a camera', { tags: ['slow'] }, async () => {
    const controller = new AbortController()
    let tries = 0
    const onReconnect = (): void => {
      if (++tries === 2) controller.abort(new Error('enough'))
    }
    const error = await pumped('/dev/video7', controller.signal, { onReconnect })
    expect(error).toMatchObject({ message: 'enough' })
    expect(opened).toBe(2)
  })
})

describe('a camera of the own network', () => {
  const cameras = [
    'rtsp://127.0.0.1/live',
    'rtsps://user:secret@192.168.0.9:322/live',
    'RTSP://localhost/live',
    'rtsp://[::1]:554/live',
    'rtsp://[::ffff:10.0.0.1]/live',
    'rtsp://0x7f.1/live',
    'http://127.0.0.1/video.mjpg'
  ]
  it.each(cameras)('is not asked where private addresses are not allowed: %s', async (source) => {
    const error = await pumped(source, new AbortController().signal, { allowPrivateAddresses: false })
    expect(error).toMatchObject({
      code: 'ERR_IMAGE_INVALID',
      message: expect.stringMatching(/^[^@]* is in a private network; allowPrivateAddresses lets it$/) as string
    })
    expect(opened).toBe(0)
  })

  it.each(cameras)('is asked where nothing is said: %s', async (source) => {
    const controller = new AbortController()
    const onReconnect = (): void => controller.abort(new Error('enough'))
    expect(await pumped(source, controller.signal, { onReconnect })).toMatchObject({ message: 'enough' })
    expect(opened).toBe(1)
  })
})
