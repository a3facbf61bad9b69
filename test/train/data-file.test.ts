import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { dataLines, readDataFile, responseProblem } from '../../lib/train/data-file'

const folder = mkdtempSync(join(tmpdir(), 'paligemma-data-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const file = join(folder, 'train.jsonl')
const read = async (...lines: string[]) => {
  writeFileSync(file, lines.join('\n'))
  return await readDataFile(file)
}

describe('JSON lines', () => {
  it('are read in either words, with pictures beside the file', async () => {
    const examples = await read(
      '\uFEFF{"image": "a.png", "prefix": "ocr", "suffix": "12"}',
      '',
      '{"images": ["b/c.png", "https://example.com/d.png"], "prompt": "x", "response": "y"}\r',
      '{"prefix": "no picture", "suffix": "z"}'
    )
    expect(examples).toEqual([
      { line: 1, images: [join(folder, 'a.png')], prompt: 'ocr', response: '12' },
      { line: 3, images: [join(folder, 'b/c.png'), 'https://example.com/d.png'], prompt: 'x', response: 'y' },
      { line: 4, images: [], prompt: 'no picture', response: 'z' }
    ])
    expect((await readDataFile(file, '/pictures'))[0]!.images).toEqual(['/pictures/a.png'])
  })

  it.each([
    [['{"image": "a.png"'], /train\.jsonl:1: is no JSON/],
    [['{"prefix": "a", "suffix": "b"}', '[1]'], /train\.jsonl:2: is no JSON object/],
    [['{"prefix": "a"}'], /train\.jsonl:1: expected a string for suffix/],
    [['{"image": 5, "prefix": "a", "suffix": "b"}'], /train\.jsonl:1: expected a path for image/],
    [[''], /holds no examples/]
  ])('that are wrong are refused with their line: %j', async (lines, message) => {
    await expect(read(...lines)).rejects.toThrow(message)
    await expect(read(...lines)).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
  })

  it('may hold any character that JSON allows in a text', async () => {
    expect(await read('{"prefix": "a\u2028b\u2029c", "suffix": "d\u0085e"}', '{"prefix": "f", "suffix": "g"}')).toEqual(
      [
        { line: 1, images: [], prompt: 'a\u2028b\u2029c', response: 'd\u0085e' },
        { line: 2, images: [], prompt: 'f', response: 'g' }
      ]
    )
  })

  it('of which one is longer than any text are told so, and the others read', { tags: ['slow'] }, async () => {
    // more than a text of V8 can hold: half a gigabyte
    const long = Buffer.alloc(1 << 26, 'x')
    const row = '{"prefix": "a", "suffix": "b"}\n'
    writeFileSync(file, row)
    for (let i = 0; i < 9; i++) appendFileSync(file, long)
    appendFileSync(file, `\n${row}`)
    await expect(readDataFile(file)).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringMatching(/train\.jsonl:2: is longer than 67108864 bytes/) as unknown
    })
    const bad: number[] = []
    const read: number[] = []
    for await (const { line } of dataLines(file, folder, (wrong) => bad.push(wrong))) read.push(line)
    expect([read, bad]).toEqual([[1, 3], [2]])
    writeFileSync(file, '')
  })

  it('of a missing file name it', async () => {
    await expect(readDataFile(join(folder, 'none.jsonl'))).rejects.toThrow(/none\.jsonl cannot be read/)
  })
})

describe('responses', () => {
  it.each([
    ['yes', undefined],
    ['<loc0001><loc0002><loc0003><loc0004> cat ; <loc0001><loc0002><loc0003><loc0004> dog', undefined],
    [' \n', /empty/],
    ['<loc0001><loc0002><loc0003> cat', /3 <loc> in a row/],
    ['<loc0009><loc0002><loc0003><loc0004> cat', /ends before it begins/],
    ['<loc0009><loc0002><loc1024><loc1023> cat', /beyond/],
    ['<loc0001><loc0002><loc0003><loc0004><seg001><seg002> cat', /2 <seg> in a row/]
  ])('%j', (response, problem) => {
    if (problem) expect(responseProblem(response)).toMatch(problem)
    else expect(responseProblem(response)).toBeUndefined()
  })
})
