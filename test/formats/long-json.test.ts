/** JSON in steps against JSON.parse: the same values, the same texts refused, and the event loop goes on. */
import { describe, expect, it } from 'vitest'
import { keysOf, parseLongJson } from '../../lib/formats/long-json'
import { randomNumbers } from '../support/tiny-model'

const random = randomNumbers(7)
const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!

function value(depth: number): unknown {
  const kind = random()
  if (depth === 0 || kind < 0.4)
    return pick([
      0,
      -1.5e-7,
      1e21,
      true,
      false,
      null,
      '',
      'a,b',
      '"',
      '\\',
      '\\"',
      ']}',
      'é▁😀',
      '\u2028',
      'long '.repeat(20)
    ])
  const items = Array.from({ length: Math.floor(random() * 6) }, () => value(depth - 1))
  if (kind < 0.7) return items
  return Object.fromEntries(items.map((item, i) => [pick([`k${i}`, '', '__proto__', '1', 'a"b', 'ü:{']), item]))
}

const outcome = async (text: string, chunk: number): Promise<unknown> =>
  await parseLongJson(Buffer.from(text), chunk).then(
    (parsed) => ({ parsed }),
    () => 'refused'
  )
const expected = (text: string): unknown => {
  try {
    return { parsed: JSON.parse(String(Buffer.from(text))) as unknown }
  } catch {
    return 'refused'
  }
}

describe('JSON in steps', () => {
  it('gives what JSON.parse gives, whatever is cut where', async () => {
    for (let i = 0; i < 400; i++) {
      const text = JSON.stringify(value(5), undefined, pick([0, 1, '\t']))
      const chunk = pick([1, 7, 16, 50])
      const result = (await outcome(text, chunk)) as { parsed: unknown }
      expect(result, text).toEqual(expected(text))
      expect(JSON.stringify(result.parsed), text).toBe(JSON.stringify(JSON.parse(text)))
    }
  })

  it('refuses what JSON.parse refuses', async () => {
    const texts = [
      '',
      ' ',
      '[',
      ']',
      '{',
      '[1,]',
      '[,1]',
      '[1,,2]',
      '{,}',
      '{"a":1,}',
      '{"a"}',
      '{"a":}',
      '[1 2]',
      '[1}',
      '"a',
      '"a\\"'
    ]
    texts.push(
      '{"a":1}x',
      '[1]]',
      '{"a" 1}',
      '{a:1}',
      '[tru]',
      'nul',
      '[[1,2],[3,4]',
      '{"a":{"b":[1,2,3}}',
      '\ufeff[]',
      "['a']"
    )
    for (const text of texts)
      for (const chunk of [1, 5, 1000]) expect(await outcome(text, chunk), `${text} ${chunk}`).toEqual(expected(text))
    for (let i = 0; i < 400; i++) {
      const text = JSON.stringify(value(4))
      const at = Math.floor(random() * text.length)
      const broken = text.slice(0, at) + pick(['', ',', ':', '"', '[', '}', '\\', '1', ' ']) + text.slice(at + 1)
      expect(await outcome(broken, pick([1, 9, 40])), broken).toEqual(expected(broken))
    }
    await expect(parseLongJson(Buffer.from(`[${'1,'.repeat(1000)}x]`), 100)).rejects.toThrow(/near byte (?:19|20)\d\d/)
  })

  it('keeps the names of large tables at hand, in order and once', async () => {
    const table = (await parseLongJson(Buffer.from('{"b":1,"a":2,"b":3,"__proto__":4}'), 4)) as object
    expect(keysOf(table)).toEqual(['b', 'a', '__proto__'])
    expect(Object.entries(table)).toEqual([
      ['b', 3],
      ['a', 2],
      ['__proto__', 4]
    ])
    expect(keysOf({ x: 1 })).toEqual(['x'])
  })

  it('ends at so many members, and at nesting that would be looked through again and again', async () => {
    const names = JSON.stringify(Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`k${i}`, i])))
    expect(await parseLongJson(Buffer.from(names), 64, 500)).toEqual(JSON.parse(names))
    for (const text of [names, `[${'0,'.repeat(600)}0]`, `{"a":{"b":${names}}}`])
      await expect(parseLongJson(Buffer.from(text), 64, 400)).rejects.toThrow('more than 400 members')
    const nested = (depth: number) => Buffer.from('['.repeat(depth) + ']'.repeat(depth))
    expect(await parseLongJson(nested(60), 1)).toEqual(JSON.parse(String(nested(60))))
    expect(await parseLongJson(nested(2000))).toEqual(JSON.parse(String(nested(2000))))
    await expect(parseLongJson(nested(1e6))).rejects.toThrow('nested more than 64 deep')
  })

  it('lets the event loop go on', { tags: ['slow'] }, async () => {
    const vocab = Object.fromEntries(Array.from({ length: 20_000 }, (_, i) => [`piece${i}`, i]))
    const bytes = Buffer.from(JSON.stringify({ model: { vocab, merges: Object.keys(vocab).map((key) => [key, 'x']) } }))
    let turns = 0
    const timer = setInterval(() => turns++, 0)
    const parsed = await parseLongJson(bytes)
    clearInterval(timer)
    expect(turns).toBeGreaterThan(2)
    expect(parsed).toEqual(JSON.parse(String(bytes)))
  })
})
