/** sharp comes with the first picture that needs it; what it refuses is told apart from bad pictures. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { undecodable } from '../../lib/images/problems'
import { isStarved, lacksSse42, sharpMissing } from '../../lib/images/sharp'

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

  it('is not loaded where the processor lacks what it needs', () => {
    expect(lacksSse42('processor : 0\nflags\t\t: fpu sse sse2 ssse3 sse4_1 cx16\n')).toBe(true)
    expect(lacksSse42('processor : 0\nflags\t\t: fpu sse sse2 ssse3 sse4_1 sse4_2 avx\n')).toBe(false)
    expect(lacksSse42('')).toBe(false)
  })

  it('that was refused a thread says nothing about the picture', () => {
    for (const reason of [
      'vips_g_thread_new: unable to create thread',
      'spawn EAGAIN',
      'vips_tracked: out of memory --- size == 48MB'
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

  it('is imported statically nowhere', () => {
    const found = spawnSync('grep', ['-rlE', "^import (sharp|\\{[^}]*\\}|sharp, .*) from 'sharp'", 'lib'], {
      cwd: root,
      encoding: 'utf8'
    })
    expect(found.stdout.split('\n').filter((line) => line !== '')).toEqual([])
  })
})
