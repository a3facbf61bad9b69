/** The mask decoder and both published ways of pasting; see golden/segment/README.md. */
import { readFileSync } from 'node:fs'
import sharp from 'sharp'
import { beforeAll, describe, expect, it } from 'vitest'
import { readMaskTensors } from '../../lib/output/masks/mask-file'
import { native, type NativeMaskDecoder } from '../../lib/engine/native'
import { golden, hasGolden } from '../support/golden'

type Corners = [number, number, number, number]
interface Obj {
  xyxy: Corners
  xyxy_big_vision: Corners
  seg: number[] | null
  mask?: { demo: string; big_vision_binary: string }
}
interface Case {
  width: number
  height: number
  objs: Obj[]
}

/** One 8-bit channel of a PNG. */
async function gray(name: string): Promise<Uint8Array> {
  const { data } = await sharp(golden('segment', name))
    .toColourspace('b-w')
    .extractChannel(0)
    .raw({ depth: 'uchar' })
    .toBuffer({ resolveWithObject: true })
  return new Uint8Array(data)
}

describe.skipIf(!hasGolden)('masks', () => {
  let decoder: NativeMaskDecoder

  beforeAll(async () => {
    decoder = await native().openMaskDecoder(await readMaskTensors(golden('segment', 'vae-oid.random.npz')))
  })

  it('decodes codes as the reference does', async () => {
    const file = readFileSync(golden('segment', 'decoded.safetensors'))
    const headerBytes = Number(file.readBigUInt64LE(0))
    const header = JSON.parse(file.toString('utf8', 8, 8 + headerBytes)) as Record<
      string,
      { data_offsets: [number, number] }
    >
    const bytes = (name: string) =>
      Uint8Array.from(
        file.subarray(8 + headerBytes + header[name]!.data_offsets[0], 8 + headerBytes + header[name]!.data_offsets[1])
      )
    const codes = new Int32Array(bytes('tokens').buffer)
    const expected = new Float32Array(bytes('mask64').buffer)
    expect(codes.length).toBe(16 * 16)
    for (let set = 0; set < 16; set++) {
      const mask = await decoder.decode([...codes.subarray(set * 16, set * 16 + 16)])
      expect(mask.length).toBe(64 * 64)
      let worst = 0
      for (let i = 0; i < mask.length; i++) {
        const d = Math.abs(mask[i]! - expected[set * 64 * 64 + i]!)
        if (!(d <= worst)) worst = d // also keeps NaN
      }
      expect(worst, `code set ${set}`).toBeLessThan(1e-4)
    }
  })

  it('pastes every mask as the demo and as the training code do', async () => {
    const { cases } = JSON.parse(readFileSync(golden('segment', 'parse.json'), 'utf8')) as { cases: Case[] }
    let pasted = 0
    for (const { width, height, objs } of cases) {
      for (const { xyxy, xyxy_big_vision: trained, seg, mask } of objs) {
        if (!mask || !seg) continue
        pasted++
        const mask64 = await decoder.decode(seg)
        const paste = async ([x0, y0, x1, y1]: Corners, convention: 'demo' | 'training') =>
          await native().pasteMask(mask64, { x0, y0, x1, y1 }, width, height, convention)

        const demo = await paste(xyxy, 'demo')
        const expectedDemo = await gray(mask.demo)
        expect(demo.length).toBe(expectedDemo.length)
        expect(
          demo.every((v, i) => Math.abs(v - expectedDemo[i]!) <= 1),
          mask.demo
        ).toBe(true)

        const training = await paste(trained, 'training')
        const expectedTraining = await gray(mask.big_vision_binary)
        expect(training.length).toBe(expectedTraining.length)
        // a value may lie within rounding of the threshold
        expect(
          training.reduce((n, v, i) => n + Number(v > 0 !== expectedTraining[i]! > 0), 0),
          mask.big_vision_binary
        ).toBeLessThanOrEqual(3)
        expect(training.every((v) => v === 0 || v === 255)).toBe(true)
      }
    }
    expect(pasted).toBe(36)
  })

  it('names a code that is out of range', async () => {
    await expect(async () => await decoder.decode([...Array<number>(15).fill(0), 128])).rejects.toThrow(
      /codes\[15\].*128/
    )
  })
})
