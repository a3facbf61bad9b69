/** Data sets of other tools: what becomes of their rows, which of them are wrong, and the way back. */
import { existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { convertDataset, type DatasetOptions, type PaliGemmaError } from '../../lib/index'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

let folder = ''
const at = (...parts: string[]): string => join(folder, ...parts)
const put = (name: string, content: unknown): string => {
  mkdirSync(dirname(at(name)), { recursive: true })
  writeFileSync(at(name), typeof content === 'string' ? content : JSON.stringify(content))
  return at(name)
}
// a header is enough: only the COCO writer looks at pixels
const picture = (width: number, height: number): string =>
  `P6\n${width} ${height}\n255\n${'\0'.repeat(width * height * 3)}`

type Line = Record<string, unknown>
const linesOf = (path: string): Line[] =>
  readFileSync(path, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Line)

async function rowsOf(source: string, options: Partial<DatasetOptions> = {}): Promise<Line[]> {
  await convertDataset({ source, out: at('out.jsonl'), ...options })
  return linesOf(at('out.jsonl'))
}

async function problems(source: string, options: Partial<DatasetOptions> = {}) {
  const found: string[] = []
  const onBadRow = ({ where, problem }: { where: string; problem: string }): unknown =>
    found.push(`${where.replace(folder, '')}: ${problem}`)
  const error = await convertDataset({ source, out: at('none.jsonl'), onBadRow, ...options }).catch(
    (reason: PaliGemmaError) => reason
  )
  expect(error).toMatchObject({ code: 'ERR_INVALID_OPTION' })
  expect(existsSync(at('none.jsonl'))).toBe(false)
  return found
}

beforeAll(() => {
  folder = tempDir()
  for (const name of ['a', 'b', 'c', 'd', 'e']) put(`pictures/${name}.ppm`, picture(100, 50))
})
afterAll(removeTempDirs)

const categories = [
  { id: 7, name: 'dog' },
  { id: 3, name: 'cat' }
]
const images = ['a', 'b', 'c'].map((name, i) => ({ id: i + 10, file_name: `${name}.ppm`, width: 100, height: 50 }))
const annotations = [
  { id: 1, image_id: 10, category_id: 3, bbox: [0, 0, 50, 25], area: 1250, iscrowd: 0 },
  { id: 2, image_id: 10, category_id: 7, bbox: [90, 40, 30, 30], area: 900, iscrowd: 0 }, // over the edge
  { id: 3, image_id: 10, category_id: 3, bbox: [50, 25, 50, 25], area: 1250, iscrowd: 0 },
  { id: 4, image_id: 11, category_id: 3, bbox: [10, 10, 10, 10], area: 100, iscrowd: 1 }
]
const coco = (): string => put('instances.json', { images, annotations, categories })

describe('COCO', () => {
  it('becomes a row a picture, labels in the order of the categories, boxes cut at the edge', async () => {
    expect(await rowsOf(coco(), { images: at('pictures') })).toEqual([
      {
        image: 'pictures/a.ppm',
        prefix: 'detect dog ; cat',
        suffix:
          '<loc0818><loc0921><loc1023><loc1023> dog ; <loc0000><loc0000><loc0512><loc0512> cat ; ' +
          '<loc0512><loc0512><loc1023><loc1023> cat'
      }
    ])
  })

  it('becomes a row a label, with the exact truth where asked, groups too', async () => {
    const rows = await rowsOf(coco(), { images: at('pictures'), per: 'label', labels: ['cat'], truth: true })
    expect(rows).toEqual([
      {
        ...{ image: 'pictures/a.ppm', prefix: 'detect cat', width: 100, height: 50 },
        suffix: '<loc0000><loc0000><loc0512><loc0512> cat ; <loc0512><loc0512><loc1023><loc1023> cat',
        objects: [
          { label: 'cat', bbox: [0, 0, 50, 25], area: 1250 },
          { label: 'cat', bbox: [50, 25, 50, 25], area: 1250 }
        ]
      }
    ])
  })

  it('finds the pictures of COCO itself, ../val2017 beside annotations', async () => {
    put('coco/val2017/a.ppm', picture(100, 50))
    const source = put('coco/annotations/instances_val2017.json', { images, annotations: [annotations[0]], categories })
    expect((await rowsOf(source))[0]).toMatchObject({ image: 'coco/val2017/a.ppm', prefix: 'detect cat' })
  })

  it('that is wrong is named', async () => {
    const bad = [
      { id: 5, image_id: 99, category_id: 3, bbox: [0, 0, 1, 1] },
      { id: 6, image_id: 10, category_id: 4, bbox: [0, 0, 1, 1] },
      { id: 7, image_id: 10, category_id: 3, bbox: [0, 0, 0, 1] },
      { image_id: 10, category_id: 3, bbox: [0, 0, '1', 1] },
      { id: 9, image_id: 10, category_id: 3, bbox: [100, 0, 5, 5] },
      { id: 10, image_id: 10, category_id: 8, bbox: [0, 0, 5, 5] }
    ]
    const names = [...categories, { id: 8, name: 'a; b' }]
    const pictures = [...images, { id: 1 }]
    const source = put('bad.json', { images: pictures, annotations: [...bad, annotations[0]], categories: names })
    expect(await problems(source, { images: at('pictures') })).toEqual([
      '/bad.json: images[3]: expected { id, file_name, width, height }',
      '/bad.json: annotations[0] (id 5): its image_id 99 is the id of no picture in images',
      '/bad.json: annotations[1] (id 6): its category_id 4 is the id of no category',
      '/bad.json: annotations[2] (id 7): its box has no area: [0,0,0,1]',
      '/bad.json: annotations[3]: expected [x, y, width, height] for bbox but found [0,0,"1",1]',
      '/bad.json: annotations[4] (id 9): its box [100,0,5,5] is outside the picture of 100 x 50',
      expect.stringMatching(/id 10\): the name "a; b" holds ";"/) as string
    ])
    const result = await convertDataset({ source, out: at('good.jsonl'), images: at('pictures'), badRows: 'skip' })
    expect(result).toMatchObject({ rows: 1, pictures: 1, bad: 7 })
    const missing = put('missing.json', { images: [{ ...images[0], file_name: 'x.ppm' }], annotations, categories })
    expect((await problems(missing)).at(-1)).toMatch(
      /missing\.json: images \(file_name "x\.ppm"\): the picture .* not there/
    )
    await expect(rowsOf(coco(), { labels: ['cow'] })).rejects.toThrow(/categories for labels .*"cow".* has dog, cat/)
    await expect(rowsOf(put('list.json', '[1'))).rejects.toThrow(/list\.json is no JSON/)
    await expect(rowsOf(put('other.json', { images }))).rejects.toThrow(/other\.json: expected a list for annotations/)
  })

  it('a place that nothing can be written to is named as the caller named it', async () => {
    put('file', 'x')
    for (const out of [at('file', 'yolo'), at('nowhere', 'yolo')])
      await expect(convertDataset({ source: coco(), images: at('pictures'), out, to: 'yolo' })).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining(`for out but received ${out}:`)
      })
  })

  it('comes back from rows, in pixels, and goes to YOLO', async () => {
    await rowsOf(coco(), { images: at('pictures') })
    await convertDataset({ source: at('out.jsonl'), out: at('back.json') })
    const back = JSON.parse(readFileSync(at('back.json'), 'utf8')) as Record<string, Line[]>
    expect(back['images']).toEqual([{ id: 1, file_name: 'pictures/a.ppm', width: 100, height: 50 }])
    expect(back['categories']).toEqual([
      { id: 1, name: 'dog' },
      { id: 2, name: 'cat' }
    ])
    expect(back['annotations']![1]).toMatchObject({ id: 2, image_id: 1, category_id: 2, iscrowd: 0 })
    for (const [i, side] of (back['annotations']![1]!['bbox'] as number[]).entries())
      expect(Math.abs(side - [0, 0, 50, 25][i]!)).toBeLessThan(0.1)

    await convertDataset({ source: coco(), images: at('pictures'), out: at('yolo') })
    expect(readFileSync(at('yolo/data.yaml'), 'utf8')).toContain('names:\n  0: "dog"\n  1: "cat"\n')
    expect(readFileSync(at('yolo/labels/train/pictures/a.txt'), 'utf8').split('\n')[1]).toBe(
      '1 0.250244 0.250244 0.500489 0.500489'
    )
    expect(statSync(at('yolo/images/train/pictures/a.ppm')).size).toBe(picture(100, 50).length)
    const again = await rowsOf(at('yolo/data.yaml'))
    expect(again[0]).toMatchObject({ image: 'yolo/images/train/pictures/a.ppm', prefix: 'detect dog ; cat' })
    expect(again[0]!['suffix']).toBe((await rowsOf(coco(), { images: at('pictures') }))[0]!['suffix'])
  })
})

describe('YOLO', () => {
  beforeAll(() => {
    put('y/images/train/1.ppm', picture(10, 10))
    put('y/images/train/2.ppm', picture(10, 10))
    put('y/images/val/3.ppm', picture(10, 10))
    put('y/labels/train/1.txt', '1 0.5 0.5 1 1\n\n0 0.25 0.25 0.5 0.5 0.9\n')
    put('y/labels/val/3.txt', '0 0 0 1 0 1 0.5\n') // an outline
  })
  const yaml = (names: string): string =>
    put('y/data.yaml', `# made by hand\npath: /somewhere/else\ntrain: images/train\nval: images/val\nnames: ${names}`)

  it.each([
    ['a list', "[cat, 'big dog']"],
    ['lines', '\n  - cat\n  - big dog\n'],
    ['numbers', '\n  0: cat\n  1: "big dog"\n']
  ])('is read with names as %s', async (_, names) => {
    expect(await rowsOf(yaml(names))).toEqual([
      {
        image: 'y/images/train/1.ppm',
        prefix: 'detect cat ; big dog',
        suffix: '<loc0000><loc0000><loc0512><loc0512> cat ; <loc0000><loc0000><loc1023><loc1023> big dog'
      }
    ])
    expect(await rowsOf(yaml(names), { subset: 'val' })).toEqual([
      { image: 'y/images/val/3.ppm', prefix: 'detect cat', suffix: '<loc0000><loc0000><loc0512><loc1023> cat' }
    ])
  })

  it('is read from a folder with labels beside the pictures, and from lists of pictures', async () => {
    put('flat/x.ppm', picture(10, 10))
    put('flat/x.txt', '0 0.5 0.5 0.5 0.5')
    await expect(rowsOf(at('flat'))).rejects.toThrow(/neither data\.yaml nor classes\.txt; give the names .* labels/)
    expect((await rowsOf(at('flat'), { labels: ['fox'] }))[0]).toMatchObject({ prefix: 'detect fox' })
    put('flat/classes.txt', 'owl\n')
    expect((await rowsOf(at('flat')))[0]).toMatchObject({ image: 'flat/x.ppm', prefix: 'detect owl' })
    put('y/list.txt', './images/train/1.ppm\n')
    put('y/listed.yaml', 'train: list.txt\nnames: [cat, dog]')
    expect((await rowsOf(at('y/listed.yaml')))[0]).toMatchObject({ image: 'y/images/train/1.ppm' })
  })

  it('that is wrong is named with file and line', async () => {
    const lines = [
      '0 0.5 0.5 0.2',
      '2 0.5 0.5 1 1',
      '0 120 40 30 30',
      '0 0.5 0.5 0 0.2',
      'cat 0 0 1 1',
      '0 0.5 0.5 1 1'
    ]
    put('w/images/1.ppm', picture(10, 10))
    put('w/labels/1.txt', lines.join('\n'))
    const source = put('w/data.yaml', 'train: images\nnames: [cat, dog]')
    const found = await problems(source)
    expect(found.map((one) => one.replace('/w/labels/1.txt:', ''))).toEqual([
      '1: expected 4 numbers of a box or an outline of x y behind the class but found 3',
      '2: class 2 has no name: there are 2, from 0 on',
      '3: its coordinates are beyond 0..1: YOLO has them in parts of width and height, not in pixels',
      '4: its box has no area',
      '5: expected numbers (class x_center y_center width height) but found "cat 0 0 1 1"'
    ])
    await expect(rowsOf(source, { subset: 'test' })).rejects.toThrow(/names no test/)
    await expect(rowsOf(put('w/no.yaml', 'train: nowhere\nnames: [a]'))).rejects.toThrow(/nowhere, where .* not there/)
    await expect(rowsOf(put('w/no.yaml', 'train: images'))).rejects.toThrow(/expected a list of classes/)
    await expect(rowsOf(put('w/no.yaml', 'a: [b'))).rejects.toThrow(/no\.yaml cannot be read/)
    await expect(rowsOf(source, { task: 'segment' })).rejects.toThrow(/maskEncoder/)
  })
})

describe('tables', () => {
  it('are read with quotes, line breaks and either delimiter, and named by line', async () => {
    const text =
      '\uFEFFimage,question,answer\r\npictures/a.ppm,"what, ""this""?",cat\r\n"pictures/b.ppm","two\nlines",dog\r\n'
    expect(await rowsOf(put('a.csv', text))).toEqual([
      { image: 'pictures/a.ppm', prefix: 'answer en what, "this"?', suffix: 'cat' },
      { image: 'pictures/b.ppm', prefix: 'answer en two\nlines', suffix: 'dog' }
    ])
    const other = put('b.csv', 'id;photo;what\n7;a;x, y\n8;b;z')
    const options = { imageName: 'pictures/{photo}.ppm', prefix: 'answer de {what} {id:4}?', suffix: '{id}' }
    expect((await rowsOf(other, options))[0]).toEqual({
      ...{ image: 'pictures/a.ppm', prefix: 'answer de x, y 0007?', suffix: '7' }
    })
    await expect(rowsOf(other)).rejects.toThrow(/b\.csv:1: expected a column for the picture .*found id, photo, what/)
    const bad = put('c.csv', 'image,prefix,suffix\npictures/a.ppm,"two\nlines",x,y\npictures/a.ppm,b,\nno.ppm,b,c\n')
    expect(await problems(bad)).toEqual([
      '/c.csv:2: 4 cells, where the first line names 3 columns',
      '/c.csv:4: its answer is empty',
      expect.stringMatching(/^\/c\.csv:5: the picture .*no\.ppm is not there/) as string
    ])
    await expect(rowsOf(put('d.csv', 'image,prefix,suffix\na,"b,c\n'))).rejects.toThrow(/line 2: a quote .* never ends/)
    await expect(rowsOf(put('e.csv', ''))).rejects.toThrow(/holds nothing/)
  })

  it('go back and forth with all answers and several pictures', async () => {
    const rows = [
      { image: 'pictures/a.ppm', prefix: 'answer en what?', suffix: 'cat', answers: ['cat', 'dog', 'cat'] },
      { images: ['pictures/a.ppm', 'pictures/b.ppm'], prefix: 'differ?', suffix: 'a "b",\nc' },
      { prefix: 'no picture', suffix: 'z' }
    ]
    const source = put('rows.jsonl', rows.map((row) => JSON.stringify(row)).join('\n'))
    await convertDataset({ source, out: at('table.csv') })
    const back = await rowsOf(at('table.csv'))
    expect(back[0]).toEqual(rows[0])
    expect(back[2]).toEqual(rows[2])
    expect((back[1]!['images'] as string[]).map((one) => one.replace(`${folder}/`, ''))).toEqual(rows[1]!.images)
  })

  it('of VQA have ten answers each, and come back', async () => {
    const answers = ['yes', 'no', 'yes'].map((answer, i) => ({ answer, answer_id: i + 1, answer_confidence: 'yes' }))
    const questions = put('v/questions.json', {
      questions: [
        { question_id: 1, image_id: 42, question: 'is it?' },
        { question_id: 2, image_id: 42, question: 'was it?' }
      ]
    })
    const given = put('v/annotations.json', { annotations: [{ question_id: 1, image_id: 42, answers }] })
    put('v/COCO_000042.ppm', picture(10, 10))
    const options = { annotations: given, imageName: 'COCO_{image_id:6}.ppm' }
    expect(await problems(questions, options)).toEqual([
      '/v/questions.json: questions[1]: no answers with its question_id 2'
    ])
    const rows = await rowsOf(questions, { ...options, badRows: 'skip' })
    expect(rows).toEqual([
      { image: 'v/COCO_000042.ppm', prefix: 'answer en is it?', suffix: 'yes', answers: ['yes', 'no', 'yes'] }
    ])
    await convertDataset({ source: at('out.jsonl'), out: at('vqa.json'), to: 'vqa' })
    const back = await rowsOf(at('vqa.json'), { imageName: '{image_id}' })
    expect(back).toEqual(rows)
    await expect(rowsOf(questions)).rejects.toThrow(/expected a list of annotations/)
  })
})

describe('splits', () => {
  const rows = Array.from({ length: 20 }, (_, i) => ({
    image: `pictures/${'abcde'[i % 5]}.ppm`,
    ...{ prefix: `q${i}`, suffix: 'x' }
  }))
  const split = async (lines: object[], options: Partial<DatasetOptions> = {}) => {
    const source = put('all.jsonl', lines.map((row) => JSON.stringify(row)).join('\n'))
    const result = await convertDataset({ source, out: at('train.jsonl'), split: 0.4, ...options })
    return { result, train: linesOf(at('train.jsonl')), val: linesOf(at('val.jsonl')) }
  }

  it('keep a picture in one part, and are the same for the same seed in any order', async () => {
    const { result, train, val } = await split(rows)
    expect(result).toMatchObject({ rows: 12, pictures: 3, heldOut: { out: at('val.jsonl'), rows: 8, pictures: 2 } })
    const of = (lines: Line[]): Set<unknown> => new Set(lines.map(({ image }) => image))
    expect([...of(val)].filter((image) => of(train).has(image))).toEqual([])
    const turned = await split([...rows].reverse())
    expect(of(turned.val)).toEqual(of(val))
    const seeds = await Promise.all(
      [1, 2, 3, 4].map(async (seed) => {
        const out = { out: at(`s${seed}.jsonl`), heldOut: at(`h${seed}.jsonl`) }
        await convertDataset({ source: at('all.jsonl'), split: 0.4, seed, ...out })
        return [...of(linesOf(out.heldOut))].sort().join()
      })
    )
    expect(new Set(seeds).size).toBeGreaterThan(1)
  })

  it('need two pictures', async () => {
    await expect(split(rows.slice(0, 1))).rejects.toThrow(/two pictures or more to split .* has 1/)
  })
})

it('writes nothing over its source, and refuses what has no objects for COCO', async () => {
  const source = put('self.jsonl', JSON.stringify({ image: 'pictures/a.ppm', prefix: 'detect cat', suffix: 'none' }))
  await expect(convertDataset({ source, out: source })).rejects.toThrow(/is a file that is read for it/)
  await expect(convertDataset({ source, out: at('o.json') })).rejects.toThrow(
    /self\.jsonl:1: its suffix names no objects/
  )
  await expect(convertDataset({ source, out: at('o.txt') })).rejects.toThrow(/Expected to \(jsonl/)
  await expect(convertDataset({ source: at('nowhere.csv'), out: at('o.csv') })).rejects.toThrow(/cannot be read/)
  const broken = put('broken.jsonl', '{"prefix": "a", "suffix": "b"}\n{"prefix": 1}\nx\n')
  expect(await problems(broken)).toEqual([
    '/broken.jsonl:2: expected a string for prefix but found 1',
    expect.stringMatching(/^\/broken\.jsonl:3: is no JSON/) as string
  ])
})
