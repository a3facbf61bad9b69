/** sharp comes with the first picture that needs it; what it refuses is told apart from bad pictures. */
import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, describe, expect, it } from 'vitest'
import { decodeImage } from '../../lib/images/decode'
import { decodeApart } from '../../lib/images/helper'
import { made, undecodable } from '../../lib/images/problems'
import { importSharp, isStarved, lacksSse42, sharpMissing } from '../../lib/images/sharp'

import { removeTempDirs, tempDir } from '../support/convert-helpers'

afterAll(removeTempDirs)

const root = join(__dirname, '..', '..')

describe('sharp', () => {
  it('that is missing is one coded error with the cure', () => {
    const page = new Error(
      '\nCould not load the "sharp" module using the linux-x64 runtime\nPossible solutions:\n- many\n- lines'
    )
    const error = sharpMissing(page)
    expect(error).toMatchObject({ code: 'ERR_DEPENDENCY_MISSING', cause: page })
    expect(error.message).toMatch(/Could not load the "sharp" module.*npm install --os=.* --cpu=.* sharp/)
    expect(error.message).not.toContain('many')
    expect(sharpMissing(new Error('libvips.so: failed to map segment from shared object')).code).toBe(
      'ERR_OUT_OF_MEMORY'
    )
  })

  it('is found in the namespace that ES module bundles hand over', async () => {
    const found = await importSharp(() => ({ default: sharp }))
    expect((await found(Buffer.from('<svg width="3" height="2"/>')).metadata()).width).toBe(3)
    const other = { default: {} } as unknown as { default: typeof sharp }
    await expect(importSharp(() => other)).rejects.toMatchObject({ code: 'ERR_DEPENDENCY_MISSING' })
  })

  it('is not loaded where the processor lacks what it needs', () => {
    expect(lacksSse42('processor : 0\nflags\t\t: fpu sse sse2 ssse3 sse4_1 cx16\n')).toBe(true)
    expect(lacksSse42('processor : 0\nflags\t\t: fpu sse sse2 ssse3 sse4_1 sse4_2 avx\n')).toBe(false)
    expect(lacksSse42('')).toBe(false)
  })

  it.each([
    'heif: Error while loading plugin: Support for this compression format has not been built in (11.6003)',
    'heif: Unsupported feature: Unsupported codec (4.3000)'
  ])('says what to do with the photographs of iPhones: %s', (message) => {
    expect(undecodable('IMG_0001.HEIC', new Error(message))).toMatchObject({
      code: 'ERR_IMAGE_INVALID',
      message: expect.stringMatching(/^IMG_0001\.HEIC: cannot be decoded: heif: .*HEIC.*save them as JPEG/) as unknown
    })
    expect(undecodable('a.png', new Error('pngload: end of stream')).message).not.toContain('HEIC')
  })

  it('that was refused a thread says nothing about the picture', () => {
    for (const reason of [
      'vips_g_thread_new: unable to create thread',
      'spawn EAGAIN',
      'vips_tracked: out of memory --- size == 48MB',
      'vips2png: unable to write to target target'
    ]) {
      expect(isStarved(new Error(reason))).toBe(true)
      expect(undecodable('a.png', new Error(reason))).toMatchObject({
        code: 'ERR_OUT_OF_MEMORY',
        message: expect.stringContaining('a.png') as unknown
      })
    }
    expect(undecodable('a.png', new Error('Input buffer contains unsupported image format')).code).toBe(
      'ERR_IMAGE_INVALID'
    )
  })

  it('in a pipeline that is cut off is at fault itself', async () => {
    const noise = { type: 'gaussian', mean: 128, sigma: 30 } as const
    const whole = await sharp({ create: { width: 300, height: 300, channels: 3, background: '#456', noise } })
      .jpeg()
      .toBuffer()
    const cut = whole.subarray(0, whole.length / 2)
    for (const image of [cut, sharp(cut), sharp(cut).resize(40)])
      await expect(decodeImage(image)).rejects.toMatchObject({
        code: 'ERR_IMAGE_INVALID',
        message: expect.stringContaining('cannot be decoded') as unknown
      })
  })

  it('that was refused one while it draws says so with a code; other mistakes stay what they are', async () => {
    const refusal = new Error('glib: Error creating thread: Resource temporarily unavailable\n\nvips2png: no target')
    await expect(made('the drawing', Promise.reject(refusal))).rejects.toMatchObject({
      code: 'ERR_OUT_OF_MEMORY',
      message: expect.stringMatching(/^the drawing: .*creating thread.*; raise the limit/) as unknown,
      cause: refusal
    })
    const other = new Error('extract_area: bad extract area')
    await expect(made('the crop', Promise.reject(other))).rejects.toBe(other)
    expect(await made('the crop', Promise.resolve(1))).toBe(1)
  })

  it.skipIf(process.platform === 'win32')(
    'in a process that the system ends is no bad picture',
    { tags: ['slow'] },
    async () => {
      const node = process.execPath
      const folder = tempDir()
      const ends = { aborted: 'kill -ABRT $$', killed: 'kill -KILL $$', 'not up': 'exit 7', hanging: 'exec sleep 9' }
      try {
        for (const [name, line] of Object.entries(ends)) {
          process.execPath = join(folder, name)
          writeFileSync(process.execPath, `#!/bin/sh\n${line}\n`, { mode: 0o755 })
          const decoding = decodeApart(Buffer.from('<svg/>'), { name, maxPixels: 100, timeoutMs: 5000 })
          await expect(decoding, name).rejects.toMatchObject({ code: 'ERR_OUT_OF_MEMORY' })
        }
        // one that came up, and then met a picture that breaks it
        process.execPath = join(folder, 'broken')
        writeFileSync(process.execPath, `#!/bin/sh\necho '{"ready":true}'\nkill -SEGV $$\n`, { mode: 0o755 })
        const decoding = decodeApart(Buffer.from('<svg/>'), { name: 'a.svg', maxPixels: 100, timeoutMs: 2000 })
        await expect(decoding).rejects.toMatchObject({ code: 'ERR_IMAGE_INVALID' })
      } finally {
        process.execPath = node
      }
    }
  )

  it('is imported statically nowhere', () => {
    const found = spawnSync('grep', ['-rlE', "^import (sharp|\\{[^}]*\\}|sharp, .*) from 'sharp'", 'lib'], {
      cwd: root,
      encoding: 'utf8'
    })
    expect(found.stdout.split('\n').filter((line) => line !== '')).toEqual([])
  })
})
