/** What the self-test takes for the same answer on another kernel table. */
import { expect, it } from 'vitest'
import { demoAnswers, sameAnswer } from '../../lib/measure/verify-demo'

const { text } = demoAnswers[2]!

it('lets places be a hair away, and nothing else', () => {
  expect(sameAnswer(text, text)).toBe(true)
  const moved = (by: number) => text.replace(/(?<=<loc0)\d{3}/, (place) => String(Number(place) + by))
  expect(sameAnswer(moved(1), text)).toBe(true)
  expect(sameAnswer(moved(10), text)).toBe(false)
  expect(sameAnswer(text.replace('blue', 'red'), text)).toBe(false)
  expect(sameAnswer(text.slice(0, -12), text)).toBe(false)
  expect(sameAnswer(`${text} ; ${text}`, text)).toBe(false)
  expect(sameAnswer('red', 'red')).toBe(true)
  expect(sameAnswer('a red', 'red')).toBe(false)
})
