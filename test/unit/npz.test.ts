import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { crc32 as crcOf, deflateRawSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { NpzArchive, looksLikeZip, parseNpyHeader } from '../../lib/npz'
import { golden, hasGolden } from './golden'

function npy (descr: string, shape: string, data: Buffer, order = 'False', version = 1): Buffer {
  const dict = `{'descr': '${descr}', 'fortran_order': ${order}, 'shape': ${shape}, }`
  const length = Buffer.alloc(version === 1 ? 2 : 4)
  const text = Buffer.from(dict + '\n', 'latin1')
  if (version === 1) length.writeUInt16LE(text.length)
  else length.writeUInt32LE(text.length)
  return Buffer.concat([Buffer.from('\x93NUMPY', 'latin1'), Buffer.from([version, 0]), length, text, data])
}

// node:zlib has crc32 from 22.2 on only
function crc32 (data: Buffer): number {
  if (typeof crcOf === 'function') return crcOf(data)
  let crc = ~0
  for (const byte of data) {
    crc ^= byte
    for (let i = 0; i < 8; i++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1
  }
  return ~crc >>> 0
}

/** A zip as numpy writes it, with the sizes in zip64 fields where asked. */
function zip (entries: { name: string, data: Buffer, deflate?: boolean }[], zip64 = false): Buffer {
  const parts: Buffer[] = []
  const directory: Buffer[] = []
  let offset = 0
  for (const { name, data, deflate } of entries) {
    const body = deflate ? deflateRawSync(data) : data
    const extra = zip64 ? Buffer.alloc(20) : Buffer.alloc(0)
    if (zip64) { extra.writeUInt16LE(1, 0); extra.writeUInt16LE(16, 2); extra.writeBigUInt64LE(BigInt(data.length), 4); extra.writeBigUInt64LE(BigInt(body.length), 12) }
    const common = Buffer.alloc(26)
    common.writeUInt16LE(zip64 ? 45 : 20, 0)
    common.writeUInt16LE(deflate ? 8 : 0, 4)
    common.writeUInt32LE(crc32(data), 10)
    common.writeUInt32LE(zip64 ? 0xffffffff : body.length, 14)
    common.writeUInt32LE(zip64 ? 0xffffffff : data.length, 18)
    common.writeUInt16LE(name.length, 22)
    common.writeUInt16LE(extra.length, 24)
    const local = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), common, Buffer.from(name), extra, body])
    const central = Buffer.alloc(14)
    central.writeUInt32LE(offset, 10)
    directory.push(Buffer.concat([Buffer.from('PK\x01\x02\x2d\x00', 'latin1'), common, central, Buffer.from(name), extra]))
    parts.push(local)
    offset += local.length
  }
  const central = Buffer.concat(directory)
  const end = Buffer.alloc(22)
  end.write('PK\x05\x06', 'latin1')
  end.writeUInt16LE(entries.length, 8)
  end.writeUInt16LE(entries.length, 10)
  end.writeUInt32LE(central.length, 12)
  end.writeUInt32LE(offset, 16)
  return Buffer.concat([...parts, central, end])
}

const f32 = (...values: number[]): Buffer => Buffer.from(new Float32Array(values).buffer)
const invalidModel = (message: RegExp): object => expect.objectContaining({ code: 'ERR_MODEL_INVALID', message: expect.stringMatching(message) })

describe('npz', () => {
  let folder: string
  beforeAll(async () => { folder = await mkdtemp(join(tmpdir(), 'npz-')) })
  afterAll(async () => { await rm(folder, { recursive: true }) })
  const write = async (name: string, data: Buffer): Promise<string> => {
    const path = join(folder, name)
    await writeFile(path, data)
    return path
  }

  for (const deflate of [false, true]) {
    for (const zip64 of [false, true]) {
      it(`reads ${deflate ? 'compressed' : 'stored'} arrays in any order${zip64 ? ' from zip64 fields' : ''}`, async () => {
        const values = Array.from({ length: 5000 }, (_, i) => Math.sin(i))
        const path = await write(`a${deflate}${zip64}.npz`, zip([
          { name: 'params/x.npy', data: npy('<f4', '(50, 100)', f32(...values)), deflate },
          { name: 'empty.npy', data: npy('<f4', '(0, 3)', Buffer.alloc(0), 'False', 2), deflate },
          { name: 'scalar.npy', data: npy('<f4', '()', f32(7)), deflate }
        ], zip64))
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
          expect(pieces.map(piece => piece.length)).toEqual([7000, 7000, 6000])
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
    const path = await write('types.npz', zip([
      { name: 'half.npy', data: npy('<f2', '(4,)', half) },
      { name: 'brain.npy', data: npy('|V2', '(2,)', brain) },
      { name: 'fortran.npy', data: npy('<f4', '(2, 3)', f32(1, 4, 2, 5, 3, 6), 'True') },
      { name: 'ints.npy', data: npy('<i8', '(1,)', Buffer.alloc(8)) }
    ]))
    const archive = await NpzArchive.open(path)
    try {
      expect([...await archive.get('half').toFloat32()]).toEqual([1, -2.5, 2 ** -24, Infinity])
      expect([...await archive.get('brain').toFloat32()]).toEqual([1, -2.5])
      expect([...await archive.get('fortran').toFloat32()]).toEqual([1, 2, 3, 4, 5, 6])
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
      ['short.npz', zip([{ name: 'x.npy', data: npy('<f4', '(3,)', f32(1, 2)) }]), /array x: shape \[3\] of f4 needs 12 bytes but there are 8/],
      ['magic.npz', zip([{ name: 'x.npy', data: Buffer.from('not a numpy array') }]), /array x: no NumPy header at byte 0/],
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
    await expect(NpzArchive.open(await write('lying.npz', lying))).rejects.toEqual(invalidModel(/claims 2147483647 bytes/))
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
      expect(values.some(value => value !== 0) && values.every(Number.isFinite)).toBe(true)
    } finally {
      await archive.close()
    }
  })
})
