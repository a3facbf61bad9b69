/** Paths in variables, expanded as Python's os.path does it. */
import { homedir, userInfo } from 'node:os'
import { describe, expect, it } from 'vitest'
import { expandPath } from '../../lib/base/expand-path'

const env = { HOME: '/home/me', DATA: '/data', EMPTY: '', A1: 'x', '2': 'two' }
const expand = (path: string) => expandPath(path, 'HF_HOME', env)

describe.skipIf(process.platform === 'win32')('paths in variables', () => {
  it.each([
    ['~', '/home/me'],
    ['~/hf', '/home/me/hf'],
    ['$HOME/hf', '/home/me/hf'],
    ['${HOME}/hf', '/home/me/hf'],
    ['$DATA/${A1}/y', '/data/x/y'],
    ['/a/$EMPTY/b', '/a//b'],
    ['/a/~/b', '/a/~/b'],
    ['$NOT_SET/hf', '$NOT_SET/hf'],
    ['${NOT_SET}/hf', '${NOT_SET}/hf'],
    ['/a/$', '/a/$'],
    ['/a/$-/${', '/a/$-/${'],
    ['$HOMEs', '$HOMEs'],
    ['/plain/path', '/plain/path'],
    ['relative', 'relative']
  ])('%s', (path, expected) => expect(expand(path)).toBe(expected))

  it('a value is not expanded again', () => {
    expect(expandPath('$A/b', 'X', { A: '$B', B: 'c' })).toBe('$B/b')
    expect(expandPath('$A/b', 'X', { A: '~' })).toBe('~/b')
  })

  it('~ without HOME is what the system says', () => {
    expect(expandPath('~/x', 'HF_HOME', {})).toBe(`${homedir()}/x`)
    expect(expandPath('~/x', 'HF_HOME', { HOME: '/' })).toBe('//x')
  })

  it("~user is that user's home; without one no folder gets such a name", () => {
    const { username, homedir: home } = userInfo()
    expect(expand(`~${username}/hf`)).toBe(`${home}/hf`)
    expect(() => expand('~nobody-of-this-name/hf')).toThrow(/HF_HOME.*~nobody-of-this-name/)
  })
})
