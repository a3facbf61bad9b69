import { describe, expect, it } from 'vitest'
import { joinTexts } from '../../lib/output/join-text'

describe('joinTexts', () => {
  it.each<[string, string[][], string]>([
    ['one tile', [['  hello world\n']], 'hello world'],
    ['nothing at all', [['', ''], ['']], ''],
    ['an empty neighbour', [['hello', '']], 'hello'],
    ['tiles that share nothing', [['left'], ['right']], 'left\nright'],
    ['words that both read', [['the quick brown', 'quick brown fox']], 'the quick brown fox'],
    ['whatever the case', [['Total: 12.50', 'TOTAL: 12.50 EUR']], 'Total: 12.50 EUR'],
    ['a word cut at the end of the first', [['the quick bro', 'quick brown fox']], 'the quick brown fox'],
    ['a word cut at the start of the second', [['the quick brown', 'ick brown fox']], 'the quick brown fox'],
    ['a word cut in both', [['the quick brown fo', 'ick brown fox jumps']], 'the quick brown fox jumps'],
    ['a misread letter', [['invoice number 1000', 'invoise number 1000 of May']], 'invoice number 1000 of May'],
    ['numbers that differ', [['12', '13 14']], '12 13 14'],
    ['a repeated word only once too few', [['no no', 'no no no']], 'no no no'],
    [
      'strips of lines',
      [['a first line\na second line'], ['a second line\na third line']],
      'a first line\na second line\na third line'
    ],
    [
      'a line cut at the seam',
      [['first line here\nsecond line here\nxxxx'], ['second line here\nthird line']],
      'first line here\nsecond line here\nthird line'
    ],
    ['columns line by line', [['one two\nsix seven', 'two three\nseven eight']], 'one two three\nsix seven eight'],
    ['columns of other lengths', [['one\ntwo', 'two\nthree\nfour']], 'one\ntwo\nthree\nfour'],
    [
      'a grid',
      [
        ['a b', 'b c'],
        ['d e', 'e f']
      ],
      'a b c\nd e f'
    ]
  ])('%s', (_, rows, text) => {
    expect(joinTexts(rows)).toBe(text)
  })

  it('reads a page of words once, however it is cut', () => {
    const words = Array.from({ length: 400 }, (_, i) => `word${(i * 7919) % 1000}`)
    for (let size = 30; size < 200; size += 17) {
      for (let shared = 3; shared < size / 2; shared += 11) {
        const tiles: string[][] = []
        for (let at = 0; at < words.length; at += size - shared) tiles.push([words.slice(at, at + size).join(' ')])
        const seen = joinTexts(tiles).split(/\s+/)
        if (shared <= 60) expect(seen, `${size} words, ${shared} shared`).toEqual(words)
      }
    }
  })

  it('takes long texts of few different words', () => {
    const text = 'na '.repeat(4000)
    expect(joinTexts([[text], [text]]).length).toBeLessThan(2 * text.length)
  })
})
