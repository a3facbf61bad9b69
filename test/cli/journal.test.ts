/** The rows of a batch on the disk. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { longestLine } from '../../lib/base/lines'
import { Journal } from '../../lib/cli/batch/journal'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

afterAll(removeTempDirs)

it('a result that no line holds is a failure, and the file can be read again', { tags: ['slow'] }, async () => {
  const path = join(tempDir(), 'rows.jsonl')
  const open = async () =>
    await Journal.open({
      ...{ path, out: path, sources: [], settings: {}, overwrite: false, retryFailed: false },
      context: { stdout: { write: () => {} }, stderr: { write: () => {} }, signal: new AbortController().signal }
    })
  const first = await open()
  await first.append({ image: 'huge.png', given: { id: 7 }, text: 'x'.repeat(longestLine) })
  await first.append({ image: 'b.png', text: 'b' })
  await expect(
    first.append({ image: 'c.png', given: { note: 'x'.repeat(longestLine) }, text: 'c' })
  ).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  await first.close()
  const again = await open()
  expect([again.done.size, again.failed]).toEqual([2, 1])
  await again.close()
  const [huge] = readFileSync(path, 'utf8').split('\n')
  expect(JSON.parse(huge!)).toEqual({
    ...{ image: 'huge.png', given: { id: 7 } },
    error: { code: 'ERR_WRITE_FAILED', message: expect.stringMatching(/a result of \d+ bytes is no row/) as string }
  })
})
