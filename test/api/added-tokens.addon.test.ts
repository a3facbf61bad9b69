/** Tokens that were added for a fine-tune: those of an adapter beside its base, and how flagged ones are found. */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { convert } from '../../lib/convert'
import { loadModel, loadTokenizer, type LoadOptions, type PaliGemma } from '../../lib/index'
import { copyCheckpoint, edit, editJson, removeTempDirs, tempDir } from '../support/convert-helpers'
import { openGguf, writeGguf } from '../support/gguf-edit'
import { golden, hasGoldens } from '../support/golden'

const present = hasGoldens('hf/pg1-tiny', 'hf/pg1-tiny-lora')
const base = golden('hf', 'pg1-tiny')
const lora = golden('hf', 'pg1-tiny-lora')
const image = join(lora, 'images', 'a.png')
const token = (id: number, content: string, flags: object = {}) => ({
  id,
  content,
  special: false,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  ...flags
})

const models: PaliGemma[] = []
let file = ''

beforeAll(async () => {
  if (!present) return
  file = join(tempDir(), 'base.gguf')
  // a model that says token 2005 whatever it is asked
  const dir = copyCheckpoint(base)
  const { cases } = JSON.parse(readFileSync(join(base, 'expected.json'), 'utf8')) as {
    cases: { name: string; greedy: { tokens: number[] } }[]
  }
  const winner = cases.find(({ name }) => name === 'caption')!.greedy.tokens[0]!
  edit(dir, ({ header, data }) => {
    const entry = header['language_model.model.embed_tokens.weight']!
    const [begin, end] = entry.data_offsets as [number, number]
    const rows = new Float32Array(data.buffer, data.byteOffset + begin, (end - begin) / 4)
    const hidden = entry.shape[1]!
    for (let i = 0; i < hidden; i++) rows[2005 * hidden + i] = 3 * rows[winner * hidden + i]!
  })
  await convert({ source: dir, out: file, type: 'f32' })
})
afterAll(async () => {
  for (const model of models) await model.dispose()
  removeTempDirs()
})

function adapter(name: string, files: Record<string, object>): string {
  const dir = join(tempDir(), name)
  mkdirSync(dir)
  cpSync(lora, dir, { recursive: true })
  for (const [name, json] of Object.entries(files)) writeFileSync(join(dir, name), JSON.stringify(json))
  return dir
}

const load = async (...adapters: NonNullable<LoadOptions['adapters']>) => {
  const model = await loadModel({
    model: file,
    threads: 2,
    adapters: adapters.map((path) => ({ path: String(path), scale: 0 }))
  })
  models.push(model)
  return model
}

const refusal = async (...adapters: string[]) =>
  await load(...adapters).then(
    () => ({ code: 'none', message: '' }),
    (error: { code: string; message: string }) => error
  )

describe.skipIf(!present)('tokens of an adapter beside its base', () => {
  it.each<[string, Record<string, object>]>([
    ['added_tokens.json', { 'added_tokens.json': { '<logo>': 2005, 'two words': 2006 } }],
    ['tokenizer.json', { 'tokenizer.json': { added_tokens: [token(2005, '<logo>'), token(2006, 'two words')] } }],
    [
      'tokenizer_config.json',
      {
        'tokenizer_config.json': {
          added_tokens_decoder: { 2005: token(2005, '<logo>'), 2006: token(2006, 'two words') }
        }
      }
    ]
  ])('named in %s are found in prompts and appear in texts', async (_name, files) => {
    const model = await load(adapter('named', files))
    expect(model.tokenize('a <logo>two words<logo>')).toEqual([...model.tokenize('a '), 2005, 2006, 2005])
    expect(model.detokenize([2006])).toBe('two words')
    const { text, tokens, usage } = await model.generate({ image, prompt: '<logo>two words', maxTokens: 1 })
    expect(tokens[0]).toMatchObject({ id: 2005, text: '<logo>' })
    expect(text).toBe('<logo>')
    expect(usage.promptTokens).toBe(4)
    const chosen = await model.generate({ image, prompt: 'x', constrain: { choices: ['<logo>'] } })
    expect(chosen.tokens.map(({ id }) => id)).toContain(2005)
  })

  it('of several adapters are all there; a reserved piece may be renamed; known ones stay', async () => {
    const one = adapter('one', { 'added_tokens.json': { '<image>': 2004, '<one>': 2005, '<bos>': 2 } })
    const two = adapter('two', { 'tokenizer.json': { added_tokens: [token(7, '<two>'), token(2004, '<image>')] } })
    const model = await load(one, two)
    expect(model.tokenize('<one><two>')).toEqual([2005, 7])
  })

  it('that are ordinary pieces of the base are found wherever they stand', async () => {
    const plain = await load(adapter('plain', {}))
    // one that merging breaks in some word
    const [id, text, word] = Array.from({ length: 850 }, (_, id) => [id, plain.detokenize([id])] as const)
      .filter(([, text]) => /^[a-z]{2,}$/.test(text))
      .flatMap(([id, text]) => [...'abcdefghijklmnopqrst'].map((before) => [id, text, before + text] as const))
      .find(([id, , word]) => !plain.tokenize(word).includes(id))!
    const model = await load(adapter('ordinary', { 'added_tokens.json': { [text]: id } }))
    expect(model.tokenize(word)).toEqual([...plain.tokenize(word[0]!), id])
  })

  it('that are special follow the rule of control tokens; without an id they take the first free row', async () => {
    const dir = adapter('special', {
      'tokenizer.json': { added_tokens: [token(2005, '<sep>', { special: true })] },
      'special_tokens_map.json': { additional_special_tokens: ['<sep>', '<end of page>', '<image>'] }
    })
    const model = await load(dir)
    expect(model.tokenize('<sep>', { allowControlTokens: true })).toEqual([2005])
    expect(model.tokenize('<sep>')).not.toContain(2005)
    expect(model.tokenize('<end of page>', { allowControlTokens: true })).toEqual([2006])
  })

  it('that the base has no place for are refused by name', async () => {
    const wrong = async (json: object) => await refusal(adapter('wrong', { 'added_tokens.json': json }))
    expect(await wrong({ '<far>': 9000 })).toMatchObject({
      code: 'ERR_MODEL_INVALID',
      message: expect.stringContaining('<far>')
    })
    expect(await wrong({ '<mine>': 700 })).toMatchObject({
      code: 'ERR_MODEL_INVALID',
      message: expect.stringContaining('700')
    })
    expect(await wrong({ '<loc0000>': 2005 })).toMatchObject({ code: 'ERR_MODEL_INVALID' })
    const [one, two] = [
      adapter('a', { 'added_tokens.json': { '<a>': 2005 } }),
      adapter('b', { 'added_tokens.json': { '<b>': 2005 } })
    ]
    expect((await refusal(one, two)).message).toMatch(/added_tokens\.json.*added_tokens\.json/)
  })
})

describe.skipIf(!present)('flags of added tokens', () => {
  const flagged = [
    token(2005, '<left>', { lstrip: true }),
    token(2006, '<right>', { rstrip: true }),
    token(2007, 'part', { single_word: true }),
    token(2008, 'ab c', { normalized: true }),
    token(2009, 'c<', { normalized: true }),
    token(2010, '<both>', { lstrip: true, rstrip: true, normalized: true })
  ]
  // What the library tokenizers 0.23 makes of them with these tokens added to pg1-tiny's tokenizer.json.
  const cases: [string, number[]][] = [
    ['a  <left>b', [664, 2005, 679]],
    ['a \n\u3000<left> b', [664, 662, 14, 2005, 304]],
    ['<right>  \n<right> b', [2006, 14, 2006, 679]],
    ['a part, part', [664, 662, 2007, 707, 662, 2007]],
    ['parts part_ \u00e4part', [677, 324, 665, 670, 299, 324, 665, 131, 662, 231, 200, 677, 324, 665]],
    ['ab c<left>', [2008, 2005]],
    ['ab c<loc0003>', [2008, 855]],
    ['a <both> \n b', [664, 662, 2010, 662, 14, 304]],
    ['<left><left>  <left>', [2005, 2005, 2005]],
    ['b <right> <loc0003>', [679, 662, 2006, 855]]
  ]

  it('are obeyed as the reference does, also after a GGUF was converted again', async () => {
    const dir = copyCheckpoint(base)
    editJson(dir, 'tokenizer.json', (json) => json.added_tokens.push(...flagged))
    const out = join(tempDir(), 'flagged.gguf')
    await convert({ source: dir, out, type: 'f32' })
    const again = join(tempDir(), 'again.gguf')
    await convert({ source: out, out: again, type: 'q8_0' })
    for (const path of [out, again]) {
      const tokenizer = await loadTokenizer(path)
      for (const [text, ids] of cases) expect(tokenizer.encode(text), text).toEqual(ids)
    }
  })

  it('are obeyed for those of an adapter, beside its base and merged', async () => {
    const dir = adapter('flagged', { 'tokenizer.json': { added_tokens: flagged } })
    const model = await load(dir)
    for (const [text, ids] of cases) expect(model.tokenize(text), text).toEqual(ids)
    const merged = join(tempDir(), 'merged.gguf')
    await convert({ source: file, out: merged, adapters: [dir] })
    const tokenizer = await loadTokenizer(merged)
    for (const [text, ids] of cases) expect(tokenizer.encode(text), text).toEqual(ids)
  })

  const spaced = [
    token(2005, ' led'),
    token(2006, '\u2581lit'),
    token(2007, '\u2581nor', { normalized: true }),
    token(2008, ' nsp', { normalized: true }),
    token(2009, ' <l>', { lstrip: true }),
    token(2010, '<r> ', { rstrip: true })
  ]
  // By the same library. U+2581 is a space only once a text is normalised.
  const spacedCases: [string, number[], string][] = [
    ['a led', [664, 2005], 'a led'],
    ['a\u2581led', [664, 363, 673], 'a led'],
    ['aled', [664, 314, 673], 'aled'],
    ['a  led', [664, 662, 2005], 'a  led'],
    ['a lit', [664, 662, 672, 319], 'a lit'],
    ['a\u2581lit', [664, 2006], 'a lit'],
    ['a  lit', [664, 22, 672, 319], 'a  lit'],
    ['a nor', [664, 2007], 'a nor'],
    ['a\u2581nor', [664, 2007], 'a nor'],
    ['a nsp', [664, 2008], 'a nsp'],
    ['a\u2581nsp', [664, 2008], 'a nsp'],
    ['a  <l>b', [664, 2009, 679], 'a <l>b'],
    ['a\u2581 <l>b', [664, 662, 2009, 679], 'a  <l>b'],
    ['a<r>   b', [664, 2010, 679], 'a<r> b'],
    ['a<r> \u2581b', [664, 2010, 304], 'a<r>  b'],
    ['a\u2581\u2581b', [664, 22, 679], 'a  b'],
    ['\u2581 led', [662, 2005], '  led'],
    ['a \u2581lit', [664, 662, 2006], 'a  lit']
  ]

  it('tell spaces from U+2581 in names and texts as the reference does', async () => {
    const dir = copyCheckpoint(base)
    editJson(dir, 'tokenizer.json', (json) => json.added_tokens.push(...spaced))
    const out = join(tempDir(), 'spaced.gguf')
    await convert({ source: dir, out, type: 'f32' })
    const tokenizer = await loadTokenizer(out)
    const model = await load(adapter('spaced', { 'tokenizer.json': { added_tokens: spaced } }))
    for (const [text, ids, shown] of spacedCases) {
      expect(tokenizer.encode(text), text).toEqual(ids)
      expect(tokenizer.decode(ids), text).toBe(shown)
      expect(model.tokenize(text), text).toEqual(ids)
    }
  })

  it('are found in a GGUF of another converter, which writes spaces as they are', async () => {
    const gguf = await openGguf(file)
    const raw = gguf.metadata.map(([key, value]): (typeof gguf.metadata)[number] => {
      const { values } = ((value as { value: unknown }).value ?? {}) as { values?: unknown[] }
      if (key === 'tokenizer.ggml.tokens') values![2005] = ' led'
      if (key === 'tokenizer.ggml.token_type') values![2005] = 4
      return [key, value]
    })
    const out = await writeGguf(join(tempDir(), 'raw.gguf'), { ...gguf, metadata: raw })
    const tokenizer = await loadTokenizer(out)
    expect(tokenizer.encode('a led')).toEqual([664, 2005])
    expect(tokenizer.decode([664, 2005])).toBe('a led')
  })

  it('both in one name are refused by name', async () => {
    const dir = adapter('both', { 'tokenizer.json': { added_tokens: [token(2005, '\u2581a b')] } })
    expect(await refusal(dir)).toMatchObject({
      code: 'ERR_MODEL_UNSUPPORTED',
      message: expect.stringMatching(/tokenizer\.json: token 2005, "\u2581a b"/)
    })
  })
})
