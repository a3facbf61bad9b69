import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, expect, it } from 'vitest'
import { longestLine, wholeLines } from '../../lib/base/lines'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

afterAll(removeTempDirs)

const linesOf = async (text: string | Buffer) => {
  const path = join(tempDir(), 'lines')
  writeFileSync(path, text)
  const lines = []
  for await (const line of wholeLines(path)) lines.push(line)
  return lines
}

it('lines that end are told with their places in bytes', async () => {
  expect(await linesOf('a\n\nh\u00e9\r\nrest')).toEqual([
    { text: 'a', line: 1, from: 0, to: 2 },
    { text: '', line: 2, from: 2, to: 3 },
    { text: 'h\u00e9\r', line: 3, from: 3, to: 8 }
  ])
  expect(await linesOf('no end')).toEqual([])
  for await (const line of wholeLines('no such file')) expect.unreachable(line.text)
})

it('lines longer than the pieces of a file are whole', async () => {
  const texts = [(1 << 20) - 1, 1 << 20, 3 << 20, 5].map((length, i) => 'abcd'[i]!.repeat(length))
  const lines = await linesOf(`${texts.join('\n')}\n`)
  expect(lines.map(({ text }) => text)).toEqual(texts)
  expect(lines.map(({ from }) => from).slice(1)).toEqual(lines.map(({ to }) => to).slice(0, -1))
})

it('of lines longer than any row nothing is kept', { tags: ['slow'] }, async () => {
  const long = Buffer.alloc(longestLine + 3, 'x')
  const lines = await linesOf(Buffer.concat([Buffer.from('a\n'), long, Buffer.from('\nb\n')]))
  expect(lines).toEqual([
    { text: 'a', line: 1, from: 0, to: 2 },
    { text: '', line: 2, from: 2, to: longestLine + 6 },
    { text: 'b', line: 3, from: longestLine + 6, to: longestLine + 8 }
  ])
})
