/** Folders inside a given one that may not be read: they are not asked for, so they are nobody's failure. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it, vi } from 'vitest'
import type { Context } from '../../lib/cli/context'
import { noteDeeper } from '../../lib/cli/images'

// root reads everything, so the refusal is made here
vi.mock('node:fs', async (original) => {
  const fs = await original<typeof import('node:fs')>()
  const readdirSync = ((path: string, ...rest: []) => {
    if (path.endsWith('lost+found')) throw Object.assign(new Error('EACCES: permission denied'), { code: 'EACCES' })
    return fs.readdirSync(path, ...rest)
  }) as typeof fs.readdirSync
  return { ...fs, readdirSync }
})

const dir = mkdtempSync(join(tmpdir(), 'paligemma-deeper-'))
afterAll(() => rmSync(dir, { recursive: true }))

it('a folder that may not be read is passed over, and one with pictures is still named', () => {
  for (const name of ['lost+found', 'more']) mkdirSync(join(dir, name))
  let said = ''
  const context = { stderr: { write: (text: string) => (said += text) } } as unknown as Context
  noteDeeper([dir], context)
  expect(said).toBe('')
  writeFileSync(join(dir, 'more', 'a.png'), '')
  noteDeeper([dir], context)
  expect(said).toContain('are not among these')
})
