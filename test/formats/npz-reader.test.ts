/** Reading parts of arrays of an npz, in windows. */
import { readdirSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, describe, expect, it, vi } from 'vitest'
import { PartReader } from '../../lib/formats/npz-reader'
import { NpzArchive } from '../../lib/formats/npz'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { npy, zip } from '../support/npz-writer'

afterAll(removeTempDirs)

describe('PartReader', () => {
  it.each([false, true])(
    'gives the same rows whatever its windows, and in any order of reads; compressed: %s',
    async (deflate) => {
      const [parts, groups, inputs, outputs] = [3, 2, 10, 7]
      const data = Float32Array.from({ length: parts * groups * inputs * outputs }, (_, i) => i)
      const path = join(tempDir(), 'a.npz')
      writeFileSync(
        path,
        zip([
          {
            name: 'a.npy',
            data: npy('<f4', `(${parts}, ${groups}, ${inputs}, ${outputs})`, Buffer.from(data.buffer)),
            deflate
          }
        ])
      )
      const file = await NpzArchive.open(path)
      try {
        for (const windowRows of [1, 3, 5, 14, 100]) {
          for (const blockRows of [1, 4, 10]) {
            const reader = new PartReader({
              scratchDir: dirname(path),
              windowBytes: windowRows * inputs * 4,
              blockBytes: blockRows * outputs * 4
            })
            const place = { array: 'a', shape: [], part: 1, parts, transposed: { groups, inputs, outputs } }
            const reads = [
              [0, 14],
              [5, 4],
              [13, 1],
              [6, 3],
              [0, 2]
            ].map(async ([first, rows]) => {
              const target = new Uint8Array(rows! * inputs * 4)
              await reader.read(file.get('a'), place, first! * inputs * 4, target)
              const values = new Float32Array(target.buffer)
              for (let r = 0; r < rows!; r++) {
                const [group, output] = [Math.floor((first! + r) / outputs), (first! + r) % outputs]
                for (let i = 0; i < inputs; i++)
                  expect(values[r * inputs + i]).toBe(data[((groups + group) * inputs + i) * outputs + output])
              }
            })
            await Promise.all(reads)
            await reader.close()
            expect(readdirSync(dirname(path))).toEqual(['a.npz'])
          }
        }
      } finally {
        await file.close()
      }
    }
  )

  // A layer of the 28B model's feed-forward is 340 MB; here a layer is 1 MB and a window 64 KB.
  it('holds one window and small blocks of a compressed archive, however large a layer is', {
    tags: ['slow']
  }, async () => {
    const [layers, inputs, outputs] = [3, 256, 1024]
    const [windowBytes, blockBytes] = [64 << 10, 8 << 10]
    const data = Float32Array.from({ length: layers * inputs * outputs }, (_, i) => Math.imul(i, 2654435761) >> 16)
    const path = join(tempDir(), 'a.npz')
    writeFileSync(
      path,
      zip([
        {
          name: 'a.npy',
          data: npy('<f4', `(${layers}, ${inputs}, ${outputs})`, Buffer.from(data.buffer)),
          deflate: true
        }
      ])
    )
    const file = await NpzArchive.open(path)
    const reader = new PartReader({ scratchDir: dirname(path), windowBytes, blockBytes })
    const allocated: number[] = []
    const allocate = Buffer.allocUnsafeSlow
    const spy = vi.spyOn(Buffer, 'allocUnsafeSlow').mockImplementation((size) => {
      allocated.push(size)
      return allocate(size)
    })
    try {
      const rows = 16
      const target = new Float32Array(rows * inputs)
      for (let part = 0; part < layers; part++) {
        const place = { array: 'a', shape: [], part, parts: layers, transposed: { groups: 1, inputs, outputs } }
        for (let first = 0; first < outputs; first += rows) {
          await reader.read(file.get('a'), place, first * inputs * 4, new Uint8Array(target.buffer))
          for (const [row, input] of [
            [0, 0],
            [3, 200],
            [rows - 1, inputs - 1]
          ] as const) {
            expect(target[row * inputs + input]).toBe(data[(part * inputs + input) * outputs + first + row])
          }
        }
      }
      expect(Math.max(...allocated)).toBe(windowBytes)
      // the window is one buffer that is used again; the rest are blocks, of which one is alive
      expect(allocated.filter((size) => size > blockBytes)).toEqual([windowBytes])
    } finally {
      spy.mockRestore()
      await reader.close()
      await file.close()
    }
  })
})
