/** What the values of options may look like. */
import { describe, expect, it } from 'vitest'
import { seconds } from '../../lib/cli/args'

describe('a time on the command line', () => {
  it.each([
    ['2', 2],
    ['0.5', 0.5],
    ['.5s', 0.5],
    ['500ms', 0.5],
    ['1500 ms', 1.5],
    ['2min', 120],
    ['2m', 120],
    ['1H', 3600],
    ['1:30', 90],
    ['00:01:30.25', 90.25],
    ['1:02:03', 3723]
  ])('%s', (text, value) => {
    expect(seconds(text)).toBeCloseTo(value, 9)
  })

  it.each([
    '',
    ' ',
    's',
    '-1',
    '1,5',
    '5 fortnights',
    '5 constructor',
    '1:3',
    '1:2:3:04',
    'NaN',
    'Infinity',
    '1e3',
    '0x10'
  ])('is not "%s"', (text) => {
    expect(() => seconds(text)).toThrow('Expected seconds')
  })
})
