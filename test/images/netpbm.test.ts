import { describe, expect, it } from 'vitest'
import { decodeImage } from '../../lib/images/decode'

const file = (header: string, ...bytes: number[]): Buffer => Buffer.concat([Buffer.from(header), Buffer.from(bytes)])
const seen = async (bytes: Buffer): Promise<number[]> => {
  const { width, height, data } = await decodeImage(bytes)
  return [width, height, ...data]
}

describe('Netpbm pictures', () => {
  it('of every kind decode', async () => {
    const colours = [255, 0, 0, 0, 128, 255]
    expect(await seen(file('P6\n2 1\n255\n', ...colours))).toEqual([2, 1, ...colours])
    expect(await seen(file('P6 # made by hand\n2\t1 # size\n# more\n255 ', ...colours))).toEqual([2, 1, ...colours])
    expect(await seen(file('P3\n2 1\n255\n255 0 0\n# second\n0 128 255\n'))).toEqual([2, 1, ...colours])
    expect(await seen(file('P5\n1 2\n255\n', 7, 200))).toEqual([1, 2, 7, 7, 7, 200, 200, 200])
    expect(await seen(file('P2\n1 2\n255\n7\n200'))).toEqual([1, 2, 7, 7, 7, 200, 200, 200])
    expect(await seen(file('P2 2 1 15 0 15'))).toEqual([2, 1, 0, 0, 0, 255, 255, 255])
  })

  it('of other depths are scaled; grey of 16 bits keeps its high byte', async () => {
    expect(await seen(file('P6\n1 1\n3\n', 0, 1, 3))).toEqual([1, 1, 0, 85, 255])
    expect(await seen(file('P6\n1 1\n65535\n', 255, 255, 128, 0, 0, 0))).toEqual([1, 1, 255, 128, 0])
    expect(await seen(file('P5\n2 1\n65535\n', 0x12, 0xff, 0xff, 0xff))).toEqual([2, 1, 18, 18, 18, 255, 255, 255])
  })

  it('that are damaged give errors, also for every truncation', async () => {
    const wrong: [Buffer, RegExp][] = [
      [file('P6\n0 1\n255\n'), /no width at byte/],
      [file('P6\nx'), /no width at byte 3/],
      [file('P6\n1 1\n70000\n', 1, 2, 3), /largest value of 70000/],
      [file('P5\n1 1\n9\n', 10), /sample 0 is 10, the largest value is 9/],
      [file('P2\n2 1\n9\n1 x'), /no number at byte/],
      [file('P6\n60000 3000\n255\n', 1), /do not fit the 19 bytes/]
    ]
    for (const [bytes, message] of wrong) {
      await expect(decodeImage(bytes)).rejects.toMatchObject({
        code: 'ERR_IMAGE_INVALID',
        message: expect.stringMatching(message) as unknown
      })
    }
    await expect(decodeImage(file('P6\n60000 60000\n255\n', 1))).rejects.toMatchObject({ code: 'ERR_IMAGE_TOO_LARGE' })
    for (const whole of [file('P6\n2 2\n255\n', ...Array<number>(12).fill(9)), file('P3 1 2 255 1 2 3 4 5 6')]) {
      for (let length = 0; length < whole.length - 1; length++)
        await expect(decodeImage(whole.subarray(0, length)), String(length)).rejects.toMatchObject({
          code: 'ERR_IMAGE_INVALID'
        })
    }
  })
})
