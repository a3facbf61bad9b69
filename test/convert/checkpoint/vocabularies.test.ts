/** Where a vocabulary's entries come from: tokenizer.json alone, and every file that names added tokens. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { convert } from '../../../lib/convert'
import { openVocabulary } from '../../../lib/convert/checkpoint/vocabulary'
import { folderError } from '../../../lib/hub/folder'
import { copyCheckpoint, editJson, readGguf, removeTempDirs, tempDir } from '../../support/convert-helpers'
import { golden, hasGolden } from '../../support/golden'

afterEach(removeTempDirs)

const tiny = golden('hf', 'pg1-tiny')
const quantizeRows = async (data: Uint8Array) => data

async function converted(dir: string) {
  const out = join(tempDir(), 'model.gguf')
  const { notes } = await convert({ source: dir, out, type: 'f32' }, { quantizeRows, verify: false })
  const { metadata } = readGguf(out)
  const list = <T>(name: string) => metadata.get(`tokenizer.ggml.${name}`) as T[]
  return { notes, tokens: list<string>('tokens'), types: list<number>('token_type'), scores: list<number>('scores') }
}

const refusal = async (dir: string) =>
  await converted(dir).then(
    () => ({ code: 'none', message: '' }),
    (error: { code: string; message: string }) => error
  )

/** As transformers 5 saves it. */
function jsonOnly(change: (json: any) => void = () => {}): string {
  const dir = copyCheckpoint(tiny)
  for (const name of ['tokenizer.model', 'added_tokens.json', 'special_tokens_map.json', 'tokenizer_config.json'])
    rmSync(join(dir, name))
  editJson(dir, 'tokenizer.json', change)
  return dir
}

const token = (id: number, content: string, special = false) => ({
  id,
  content,
  special,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false
})

describe.skipIf(!hasGolden)('tokenizer.json alone', () => {
  it('gives the pieces of tokenizer.model, and an order of merges that agrees with its scores', {
    tags: ['slow']
  }, async () => {
    const [plain, json] = [await converted(tiny), await converted(jsonOnly())]
    expect(json.tokens).toEqual(plain.tokens)
    expect(json.types.filter((type, id) => type === 6 && plain.types[id] === 6)).toHaveLength(256)
    const merged = plain.tokens.map((_, id) => id).filter((id) => plain.types[id] === 1 && plain.tokens[id]!.length > 1)
    const order = (scores: number[]) => [...merged].sort((a, b) => scores[b]! - scores[a]! || a - b)
    expect(order(json.scores)).toEqual(order(plain.scores))
  })

  it('takes merges as pairs or as texts', async () => {
    const texts = jsonOnly((json) => {
      json.model.merges = json.model.merges.map((pair: string[] | string) =>
        Array.isArray(pair) ? pair.join(' ') : pair
      )
    })
    expect((await converted(texts)).scores).toEqual((await converted(jsonOnly())).scores)
  })

  it('gives the same in every order and spelling of its parts', async () => {
    const metaspace = { type: 'Metaspace', replacement: '▁', prepend_scheme: 'never', split: false }
    const changes: ((json: any) => void)[] = [
      (json) => {
        json.added_tokens.reverse()
        json.model.vocab = Object.fromEntries(Object.entries(json.model.vocab).reverse())
        delete json.model.type
        Object.assign(json, { truncation: { max_length: 9 }, padding: { strategy: 'BatchLongest' } })
        json.normalizer = { type: 'Sequence', normalizers: [json.normalizer] }
      },
      (json) => {
        json.normalizer.pattern = { Regex: ' ' }
        json.pre_tokenizer = null
      },
      (json) => Object.assign(json, { normalizer: null, pre_tokenizer: metaspace })
    ]
    const read = async (source: string) =>
      await openVocabulary({
        ...{ source, kind: 'directory', tokenizer: undefined, adapters: [] },
        ...{ rows: 2048, imageTokenId: 2004 }
      })
    const { tokens, types, scores } = await read(jsonOnly())
    for (const change of changes) expect(await read(jsonOnly(change))).toMatchObject({ tokens, types, scores })
  })

  it.each<[string, (json: any) => void]>([
    ['normalizer', (json) => (json.normalizer = { type: 'NFKC' })],
    [
      'normalizer',
      (json) => (json.normalizer = { type: 'Sequence', normalizers: [json.normalizer, { type: 'Lowercase' }] })
    ],
    ['normalizer', (json) => (json.normalizer = null)],
    ['pre_tokenizer', (json) => (json.pre_tokenizer = { type: 'ByteLevel' })],
    ['decoder', (json) => json.decoder.decoders.push({ type: 'Strip', content: ' ', start: 1, stop: 0 })],
    ['pre_tokenizer', (json) => (json.pre_tokenizer.pattern = { Regex: '\\d' })],
    ['pre_tokenizer', (json) => (json.pre_tokenizer.invert = true)],
    [
      'pre_tokenizer',
      (json) => (json.pre_tokenizer = { type: 'Metaspace', replacement: '▁', prepend_scheme: 'never' })
    ],
    ['model.ignore_merges', (json) => (json.model.ignore_merges = true)],
    ['model.type', (json) => (json.model.type = 'Unigram')],
    ['model.byte_fallback', (json) => (json.model.byte_fallback = false)],
    ['model.end_of_word_suffix', (json) => (json.model.end_of_word_suffix = '</w>')]
  ])("a %s that is not Gemma's is refused by name", async (name, change) => {
    const { code, message } = await refusal(jsonOnly((json) => void change(json)))
    expect(code).toBe('ERR_MODEL_UNSUPPORTED')
    expect(message).toContain(`tokenizer.json: ${name}`)
  })

  it.each<[string, (json: any) => void]>([
    ['merges', (json) => (json.model.merges[3] = ['a', 'zzzz'])],
    ['merges', (json) => (json.model.merges = 7)],
    ['vocab', (json) => (json.model.vocab['a'] = 1e9)],
    ['vocab', (json) => (json.model.vocab['a'] = 2 ** 32 + 1)],
    ['vocab', (json) => (json.model.vocab['a'] = json.model.vocab['b'])],
    ['added_tokens', (json) => (json.added_tokens[9].id = -1)],
    ['added_tokens', (json) => (json.added_tokens[9] = 'x')]
  ])('with nonsense in %s is refused by name', async (name, change) => {
    expect(await refusal(jsonOnly((json) => void change(json)))).toMatchObject({
      code: 'ERR_MODEL_INVALID',
      message: expect.stringContaining(name)
    })
  })
})

describe.skipIf(!hasGolden)('added tokens', () => {
  it.each<[string, (dir: string) => void]>([
    [
      'tokenizer.json',
      (dir) =>
        editJson(dir, 'tokenizer.json', (json) =>
          json.added_tokens.push(token(2005, '<logo>'), token(2006, '<sep>', true))
        )
    ],
    [
      'tokenizer_config.json',
      (dir) =>
        editJson(dir, 'tokenizer_config.json', (json) =>
          Object.assign(json.added_tokens_decoder, { 2005: token(2005, '<logo>'), 2006: token(2006, '<sep>', true) })
        )
    ],
    [
      'added_tokens.json and special_tokens_map.json',
      (dir) => {
        editJson(dir, 'added_tokens.json', (json) => Object.assign(json, { '<logo>': 2005, '<sep>': 2006 }))
        editJson(dir, 'special_tokens_map.json', (json) => json.additional_special_tokens.push('<sep>'))
      }
    ]
  ])('are taken from %s', async (_name, change) => {
    const dir = copyCheckpoint(tiny)
    change(dir)
    const { tokens, types } = await converted(dir)
    expect([tokens[2005], tokens[2006], tokens[2007]]).toEqual(['<logo>', '<sep>', '[PAD2007]'])
    expect([types[2005], types[2006]]).toEqual([4, 3])
  })

  it('without an id follow the last one, with a note', async () => {
    const dir = copyCheckpoint(tiny)
    editJson(dir, 'special_tokens_map.json', (json) => json.additional_special_tokens.push('<one>', '<two words>'))
    const { tokens, notes } = await converted(dir)
    expect(tokens.slice(2005, 2008)).toEqual(['<one>', '<two▁words>', '[PAD2007]'])
    expect(notes.join()).toContain('"<one>" without an id: taken as token 2005')
  })

  it('in a table by role, as transformers 5 writes it, are special', async () => {
    const dir = copyCheckpoint(tiny)
    editJson(dir, 'tokenizer.json', (json) => json.added_tokens.push(token(2005, '<logo>'), token(2006, '<sep>')))
    editJson(dir, 'tokenizer_config.json', (json) => {
      delete json.added_tokens_decoder
      delete json.extra_special_tokens
      json.model_specific_special_tokens = { image_token: '<image>', sep_token: '<sep>', new_token: '<new>' }
    })
    const { tokens, types } = await converted(dir)
    expect(tokens.slice(2005, 2008)).toEqual(['<logo>', '<sep>', '<new>'])
    expect(types.slice(2005, 2008)).toEqual([4, 3, 3])
  })

  it('may rename a reserved piece, but no other', async () => {
    const rename = (id: number) => {
      const dir = copyCheckpoint(tiny)
      editJson(dir, 'tokenizer_config.json', (json) => delete json.added_tokens_decoder[String(id)])
      editJson(dir, 'tokenizer.json', (json) => {
        json.added_tokens = [...json.added_tokens.filter((entry: any) => entry.id !== id), token(id, '<mine>')]
      })
      return dir
    }
    expect((await converted(rename(7))).tokens[7]).toBe('<mine>')
    expect(await refusal(rename(700))).toMatchObject({
      code: 'ERR_MODEL_INVALID',
      message: expect.stringContaining('<mine>')
    })
  })

  it('that are ordinary pieces of tokenizer.model are found wherever they stand', async () => {
    const plain = await converted(tiny)
    const id = plain.tokens.findIndex((text, at) => plain.types[at] === 1 && /^[a-z]{3}$/.test(text))
    const dir = copyCheckpoint(tiny)
    editJson(dir, 'tokenizer.json', (json) => json.added_tokens.push(token(id, plain.tokens[id]!)))
    expect((await converted(dir)).types[id]).toBe(4)
  })

  it('of one name under two ids, or of half a character, are refused', async () => {
    for (const [text, why] of [
      ['<loc0000>', /which is token \d+/],
      ['\ud800x', /half a character/]
    ] as const) {
      const dir = copyCheckpoint(tiny)
      rmSync(join(dir, 'tokenizer.json'))
      rmSync(join(dir, 'tokenizer_config.json'))
      editJson(dir, 'added_tokens.json', (json) => Object.assign(json, { [text]: 2005 }))
      const { code, message } = await refusal(dir)
      expect([code, message]).toEqual(['ERR_MODEL_INVALID', expect.stringMatching(why)])
    }
  })

  it('of which two files say different things are refused, naming both', async () => {
    const dir = copyCheckpoint(tiny)
    editJson(dir, 'tokenizer.json', (json) => json.added_tokens.push(token(2005, '<logo>')))
    editJson(dir, 'added_tokens.json', (json) => Object.assign(json, { '<other>': 2005 }))
    const { code, message } = await refusal(dir)
    expect(code).toBe('ERR_MODEL_INVALID')
    expect(message).toMatch(/added_tokens\.json.*tokenizer\.json/)
  })

  it('with ids beyond all rows are refused by name', async () => {
    for (const id of [2048, 1e9, 2 ** 40]) {
      const dir = copyCheckpoint(tiny)
      editJson(dir, 'added_tokens.json', (json) => Object.assign(json, { '<far>': id }))
      expect(await refusal(dir)).toMatchObject({ code: 'ERR_MODEL_INVALID' })
    }
  })
})

describe('a folder as the model', () => {
  it('is told by what lies in it', async () => {
    const dir = join(tempDir(), 'thing')
    mkdirSync(dir)
    const message = async () => (await folderError(dir)).message
    expect(await message()).toContain(`${dir} is a directory: it holds no model`)
    writeFileSync(join(dir, 'weights.npz'), '')
    expect(await message()).toContain(`paligemma convert ${join(dir, 'weights.npz')}`)
    writeFileSync(join(dir, 'adapter_config.json'), '{}')
    writeFileSync(join(dir, 'optimizer.safetensors'), '')
    expect(await message()).toContain('it holds an adapter')
    writeFileSync(join(dir, 'config.json'), '{}')
    expect(await message()).toContain(`paligemma convert ${dir} --out thing-Q4_K_M.gguf`)
    writeFileSync(join(dir, 'x.gguf'), readFileSync(join(dir, 'config.json')))
    expect(await message()).toContain(join(dir, 'x.gguf'))
  })
})
