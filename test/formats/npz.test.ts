import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { NpzArchive, looksLikeZip, parseNpyHeader } from '../../lib/formats/npz'
import { golden, hasGolden } from '../support/golden'
import { npy, zip } from '../support/npz-writer'

const f32 = (...values: number[]): Buffer => Buffer.from(new Float32Array(values).buffer)
const invalidModel = (message: RegExp): object =>
  expect.objectContaining({ code: 'ERR_MODEL_INVALID', message: expect.stringMatching(message) })

describe('npz', () => {
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'npz-'))
  })
  afterAll(async () => {
    await rm(folder, { recursive: true })
  })
  const write = async (name: string, data: Buffer): Promise<string> => {
    const path = join(folder, name)
    await writeFile(path, data)
    return path
  }

  for (const deflate of [false, true]) {
    for (const zip64 of [false, true]) {
      const how = `${deflate ? 'compressed' : 'stored'} arrays in any order${zip64 ? ' from zip64 fields' : ''}`
      it(`reads ${how}`, async () => {
        const values = Array.from({ length: 5000 }, (_, i) => Math.sin(i))
        const path = await write(
          `a${deflate}${zip64}.npz`,
          zip(
            [
              { name: 'params/x.npy', data: npy('<f4', '(50, 100)', f32(...values)), deflate },
              { name: 'empty.npy', data: npy('<f4', '(0, 3)', Buffer.alloc(0), 'False', 2), deflate },
              { name: 'scalar.npy', data: npy('<f4', '()', f32(7)), deflate }
            ],
            zip64
          )
        )
        const archive = await NpzArchive.open(path)
        try {
          expect([...archive.arrays.keys()]).toEqual(['params/x', 'empty', 'scalar'])
          const x = archive.get('params/x')
          expect([x.shape, x.dtype, x.bytes]).toEqual([[50, 100], 'f4', 20000])
          const all = f32(...values)
          expect(await x.read(400, 800)).toEqual(all.subarray(400, 1200))
          expect(await x.read(4000, 40)).toEqual(all.subarray(4000, 4040))
          expect(await x.read(0, 12)).toEqual(all.subarray(0, 12))
          const pieces: Buffer[] = []
          for await (const piece of x.chunks(7000)) pieces.push(piece)
          expect(pieces.map((piece) => piece.length)).toEqual([7000, 7000, 6000])
          expect(Buffer.concat(pieces)).toEqual(all)
          expect(await archive.get('scalar').toFloat32()).toEqual(new Float32Array([7]))
          expect((await archive.get('empty').read()).length).toBe(0)
          expect(() => archive.get('nope')).toThrow(/there is no array nope/)
        } finally {
          await archive.close()
        }
      })
    }
  }

  it('widens half and bfloat16 and turns column-major into row-major', async () => {
    const half = Buffer.from(new Uint16Array([0x3c00, 0xc100, 0x0001, 0x7c00]).buffer)
    const brain = Buffer.from(new Uint16Array([0x3f80, 0xc020]).buffer)
    const path = await write(
      'types.npz',
      zip([
        { name: 'half.npy', data: npy('<f2', '(4,)', half) },
        { name: 'brain.npy', data: npy('|V2', '(2,)', brain) },
        { name: 'fortran.npy', data: npy('<f4', '(2, 3)', f32(1, 4, 2, 5, 3, 6), 'True') },
        { name: 'ints.npy', data: npy('<i8', '(1,)', Buffer.alloc(8)) }
      ])
    )
    const archive = await NpzArchive.open(path)
    try {
      expect([...(await archive.get('half').toFloat32())]).toEqual([1, -2.5, 2 ** -24, Infinity])
      expect([...(await archive.get('brain').toFloat32())]).toEqual([1, -2.5])
      expect([...(await archive.get('fortran').toFloat32())]).toEqual([1, 2, 3, 4, 5, 6])
      await expect(archive.get('ints').toFloat32()).rejects.toEqual(invalidModel(/ints: items of type i8/))
    } finally {
      await archive.close()
    }
  })

  it('refuses damaged archives, naming the file and the array', async () => {
    const good = zip([{ name: 'x.npy', data: npy('<f4', '(2,)', f32(1, 2)) }])
    const cases: [string, Buffer, RegExp][] = [
      ['not-zip.npz', Buffer.from('hello'), /not a readable npz/],
      ['cut.npz', good.subarray(0, good.length - 30), /not a readable npz/],
      [
        'short.npz',
        zip([{ name: 'x.npy', data: npy('<f4', '(3,)', f32(1, 2)) }]),
        /array x: shape \[3\] of f4 needs 12 bytes but there are 8/
      ],
      [
        'magic.npz',
        zip([{ name: 'x.npy', data: Buffer.from('not a numpy array') }]),
        /array x: no NumPy header at byte 0/
      ],
      ['big-endian.npz', zip([{ name: 'x.npy', data: npy('>f4', '(2,)', f32(1, 2)) }]), /big-endian/],
      ['huge.npz', zip([{ name: 'x.npy', data: npy('<f4', '(4294967296, 4294967296)', f32(1)) }]), /impossible shape/],
      ['object.npz', zip([{ name: 'x.npy', data: npy('|O', '(2,)', f32(1)) }]), /not understood/]
    ]
    for (const [name, data, message] of cases) {
      const path = await write(name, data)
      await expect(NpzArchive.open(path)).rejects.toEqual(invalidModel(message))
      await expect(NpzArchive.open(path)).rejects.toThrow(path)
    }
    await expect(NpzArchive.open(join(folder, 'none.npz'))).rejects.toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' })
    const lying = Buffer.from(good)
    const claim = lying.lastIndexOf(Buffer.from('PK\x01\x02', 'latin1')) + 20
    lying.writeUInt32LE(0x7fffffff, claim)
    lying.writeUInt32LE(0x7fffffff, claim + 4)
    await expect(NpzArchive.open(await write('lying.npz', lying))).rejects.toEqual(
      invalidModel(/claims 2147483647 bytes/)
    )
  })

  it('refuses headers that claim to be enormous', () => {
    const header = npy('<f4', '(1,)', f32(1), 'False', 2)
    header.writeUInt32LE(0x7fffffff, 8)
    expect(() => parseNpyHeader(header, 'x')).toThrow(/NumPy header of 2147483659 bytes/)
  })

  it('tells zip archives from other files', async () => {
    expect(await looksLikeZip(await write('z', zip([])))).toBe(false) // an empty archive has no first entry
    expect(await looksLikeZip(await write('z2', zip([{ name: 'a.npy', data: Buffer.alloc(0) }])))).toBe(true)
    expect(await looksLikeZip(join(folder, 'missing'))).toBe(false)
  })

  it.skipIf(!hasGolden)('reads the mask decoder weights of the reference data', async () => {
    const layout = JSON.parse(await readFile(golden('segment', 'layout.json'), 'utf8')) as Record<string, number[]>
    const archive = await NpzArchive.open(golden('segment', 'vae-oid.random.npz'))
    try {
      expect(Object.fromEntries([...archive.arrays].map(([name, array]) => [name, array.shape]))).toEqual(layout)
      const values = await archive.get('_vq_vae._embedding').toFloat32()
      expect(values.length).toBe(128 * 512)
      expect(values.some((value) => value !== 0) && values.every(Number.isFinite)).toBe(true)
    } finally {
      await archive.close()
    }
  })
})
