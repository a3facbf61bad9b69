/** `paligemma dataset`: what it prints of good and bad rows. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { command } from '../support/command'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

afterAll(removeTempDirs)

it('converts, splits, and names what is wrong', async () => {
  const folder = tempDir()
  const table = join(folder, 'table.csv')
  const good = Array.from({ length: 10 }, (_, i) => `https://example.com/${i}.png,what ${i}?,a${i}`).join('\n')
  writeFileSync(table, `image,question,answer\n${good}\n`)
  const train = join(folder, 'train.jsonl')
  const done = await command('dataset', table, '--out', train, '--split', '0.2', '--prefix', 'answer de {question}')
  expect(done.code).toBe(0)
  expect(done.out).toMatch(/train\.jsonl: 8 rows about 8 pictures\n.*val\.jsonl: 2 rows about 2 pictures/)
  expect(readFileSync(train, 'utf8')).toContain('"prefix":"answer de what ')

  writeFileSync(table, `image,question,answer\n${good}\n${'x\n'.repeat(30)}`)
  const out = join(folder, 'out.jsonl')
  const bad = await command('dataset', table, '--out', out)
  expect(bad.code).toBe(2)
  expect(bad.err).toMatch(/table\.csv:12: 1 cells, where the first line names 3 columns/)
  expect(bad.err).toMatch(/\.\.\. and 10 more/)
  expect(bad.err).toMatch(/ERR_INVALID_OPTION: 30 rows cannot be used, nothing was written/)
  expect(existsSync(out)).toBe(false)
  const skipped = await command('dataset', table, '--out', out, '--skip-bad', '--json')
  const device = await command('dataset', table, '--out', '/dev/null', '--skip-bad')
  expect(device.err).toMatch(/ERR_INVALID_OPTION: .* \/dev\/null is a device/)
  expect(JSON.parse(skipped.out)).toEqual({ out, rows: 10, pictures: 10, bad: 30 })
})
