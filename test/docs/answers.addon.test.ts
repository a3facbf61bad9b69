/** Documents say what their snippets log; `npm run docs -- --pictures` writes it. */
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { beforeAll, describe, expect, it } from 'vitest'
import { snippets } from '../support/snippets'

interface Answers {
  logOf: (code: string, folder: string) => string[]
  answersIn: (code: string) => string[]
}

const root = join(__dirname, '..', '..')
const shown = snippets(['js']).filter(({ text }) => text.includes('// → '))

/** Machines differ in the last digits of a score, and by a pixel or a few of a box. */
function expectLike(lines: string[], told: string[]) {
  const number = /\d+(?:\.\d+)?/g
  const words = (list: string[]) => list.map((line) => line.replace(number, '#'))
  expect(words(lines), 'run "npm run docs -- --pictures"').toEqual(words(told))
  const numbers = (list: string[]) => list.flatMap((line) => line.match(number) ?? [])
  const [came, written] = [numbers(lines), numbers(told)]
  for (const [i, text] of written.entries()) {
    const range = text.startsWith('0.') ? 0.05 : Number(text) > 20 ? 4 : 0
    expect(Math.abs(Number(came[i]) - Number(text)), `${came[i]} is written ${text}`).toBeLessThanOrEqual(range)
  }
}

describe('answers in documents', () => {
  let answers: Answers
  beforeAll(async () => {
    answers = (await import(pathToFileURL(join(root, 'scripts', 'docs', 'answers.mjs')).href)) as Answers
  })

  it.each(shown.map(({ where, text }) => [where, text]))('of %s are what comes', (_, code) => {
    expectLike(answers.logOf(code, join(root, 'docs', 'pictures')), answers.answersIn(code))
  })

  it('notice another word and a number that is far off', () => {
    expect(() => expectLike(['red ring 0.97'], ['red circle 0.97'])).toThrow()
    expect(() => expectLike(['red ring 0.91'], ['red ring 0.97'])).toThrow()
    expect(() => expectLike(['4'], ['5'])).toThrow()
    expect(() => expectLike(['4', '5'], ['4'])).toThrow()
    expectLike(['red ring 0.96 at 101'], ['red ring 0.97 at 100'])
  })
})
