/** Tokens that were added to a vocabulary: named in any of the files that tokenizers are saved as, in any folder. */
import { join } from 'node:path'
import { PaliGemmaError } from '../../base/errors'
import { isObject, type Fields, readJson } from '../../formats/fields'
import { modelLimits } from './limits'
import { markFlag, TokenFlag, TokenType, type Vocabulary } from '../../formats/sentencepiece'

export interface AddedToken {
  id: number
  text: string
  /** A control token: texts hold it only where they may, and it is not shown. */
  special: boolean
  /** How it is found, a sum of {@link TokenFlag}. */
  flags: number
  /** The file that names it. */
  from: string
}

export interface AddedTokens {
  tokens: AddedToken[]
  /** Special tokens that no file gives an id: they follow the last one, in this order. */
  unnumbered: { text: string; from: string }[]
}

/** What llama.cpp's converter gives tokens outside the SentencePiece model. */
const addedScore = -1000

/** All that the files of a folder name; two names for one id, or two ids for one name, are an error. */
export async function readAddedTokens(dir: string): Promise<AddedTokens> {
  const [tokenizer, config, plain, map] = await Promise.all(
    ['tokenizer.json', 'tokenizer_config.json', 'added_tokens.json', 'special_tokens_map.json'].map(
      async (name) => await readJson(join(dir, name), true)
    )
  )
  const list: AddedToken[] = []
  const special = specialNames([config, map])
  const add = (entry: Fields, id: number, text: string) =>
    list.push({
      id,
      text,
      special: entry.boolean('special', false) || special.has(text),
      flags: text === '<image>' ? 0 : flagsOf(entry, id, text),
      from: entry.file
    })
  if (tokenizer?.has('added_tokens'))
    for (const entry of tokenizer.objects('added_tokens')) add(entry, tokenId(entry, 'id'), entry.string('content'))
  if (config?.has('added_tokens_decoder')) {
    const decoder = config.object('added_tokens_decoder')
    for (const key of Object.keys(decoder.values)) {
      const entry = decoder.object(key)
      if (!/^\d{1,8}$/.test(key)) decoder.fail(key, 'a token id as its key')
      add(entry, Number(key), entry.string('content'))
    }
  }
  for (const text of Object.keys(plain?.values ?? {}))
    list.push({ id: tokenId(plain!, text), text, special: special.has(text), flags: 0, from: plain!.file })
  const tokens = agreed(list)
  const numbered = new Set(tokens.map(({ text }) => text))
  const unnumbered = [...special].filter(([text]) => !numbered.has(text)).map(([text, from]) => ({ text, from }))
  return { tokens, unnumbered }
}

function flagsOf(entry: Fields, id: number, text: string): number {
  const flags = Object.entries(TokenFlag).reduce(
    (sum, [name, flag]) => (entry.boolean(name, false) ? sum | flag : sum),
    0
  )
  // Before normalisation a space in a text is no U+2581. Runs of them are Gemma's own pieces, for either.
  if ((flags & TokenFlag.normalized) !== 0 || !text.includes('▁') || /^▁+$/.test(text)) return flags
  if (text.includes(' '))
    throw new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      `${entry.file}: token ${id}, ${JSON.stringify(text)}, holds both spaces and U+2581, which pieces do not tell ` +
        'apart; set "normalized": true, or name it with one of them alone'
    )
  return flags | markFlag
}

function tokenId(fields: Fields, name: string): number {
  return fields.integer(name, 0, undefined, modelLimits.tokenId)
}

// Lists, or tables by role, as the versions of transformers name them.
const specialLists = new Set(['additional_special_tokens', 'extra_special_tokens', 'model_specific_special_tokens'])

/** Names of special tokens with the file that lists them: by role, or in lists under several keys. */
function specialNames(files: readonly (Fields | undefined)[]): Map<string, string> {
  const names = new Map<string, string>()
  for (const file of files) {
    if (!file) continue
    const add = (value: unknown) => {
      const text = isObject(value) ? value['content'] : value
      if (typeof text === 'string' && text !== '' && !names.has(text)) names.set(text, file.file)
    }
    for (const [key, value] of Object.entries(file.values)) {
      if (/^[a-z]+_token$/.test(key)) add(value)
      if (!specialLists.has(key)) continue
      const values: unknown[] = Array.isArray(value) ? value : isObject(value) ? Object.values(value) : []
      for (const item of values) add(item)
    }
  }
  return names
}

/** Those of several folders as one list: no id has two names, and no name two ids. */
export function agreed(list: readonly AddedToken[]): AddedToken[] {
  const byId = new Map<number, AddedToken>()
  const byText = new Map<string, AddedToken>()
  for (const token of list) {
    if (token.text === '') throw wrong(token, `is named ""`)
    if (/\p{Surrogate}/u.test(token.text))
      throw wrong(token, `is named by half a character, ${JSON.stringify(token.text)}`)
    const [same, other] = [byId.get(token.id), byText.get(token.text)]
    if (same && same.text !== token.text)
      throw wrong(token, `is ${JSON.stringify(token.text)}, but ${JSON.stringify(same.text)} in ${same.from}`)
    if (other && other.id !== token.id)
      throw wrong(token, `is ${JSON.stringify(token.text)}, which is token ${other.id} in ${other.from}`)
    byId.set(token.id, same ? { ...same, special: same.special || token.special } : token)
    byText.set(token.text, token)
  }
  return [...byId.values()]
}

function wrong({ id, from }: Pick<AddedToken, 'id' | 'from'>, what: string): PaliGemmaError {
  return new PaliGemmaError(
    'ERR_MODEL_INVALID',
    `${from}: token ${id} ${what}; the files belong to different tokenizers`
  )
}

/**
 * Names the tokens in a vocabulary. A reserved or padding entry takes the new name; another piece is an error, and so
 * is the name of another added token. An ordinary piece of the name is found wherever it stands from now on.
 */
export function applyAddedTokens(vocabulary: Vocabulary, added: AddedTokens): void {
  const { tokens, scores, types } = vocabulary
  const elsewhere = piecesElsewhere(vocabulary, added)
  for (const { id, text, special, flags, from } of added.tokens) {
    const piece = text.replaceAll(' ', '▁')
    const kind = special || text === '<image>' ? TokenType.control : TokenType.userDefined
    const now = tokens[id]
    if (flags !== 0) (vocabulary.flags ??= new Map()).set(id, flags)
    if (now === piece || isSameByte(now, piece)) {
      if (types[id] === TokenType.normal) types[id] = kind
      continue
    }
    const other = elsewhere.get(piece)
    if (other !== undefined)
      throw wrong({ id, from }, `is ${JSON.stringify(text)}, which is token ${other} of the tokenizer's model`)
    const free = now === undefined || types[id] === TokenType.unused || /^(?:<unused\d+>|\[PAD\d+\])$/.test(now)
    if (!free || (now !== undefined && from.endsWith('added_tokens.json') && types[id] !== TokenType.unused)) {
      throw new PaliGemmaError(
        'ERR_MODEL_INVALID',
        `${from}: expected an id that the tokenizer's model leaves free for ${JSON.stringify(text)} but found ${id}, ` +
          `which is ${JSON.stringify(now)}`
      )
    }
    tokens[id] = piece
    scores[id] = addedScore
    types[id] = kind
  }
}

/** Ids of added tokens that are called like one that is to be added under another id. */
function piecesElsewhere({ tokens, types }: Vocabulary, added: AddedTokens): Map<string, number> {
  const wanted = new Map<string, number>()
  for (const { id, text } of added.tokens) {
    const piece = text.replaceAll(' ', '▁')
    if (tokens[id] !== piece) wanted.set(piece, id)
  }
  const found = new Map<string, number>()
  if (wanted.size === 0) return found
  for (const [id, piece] of tokens.entries()) {
    const taken = piece !== undefined && types[id] !== TokenType.normal && (wanted.get(piece) ?? id) !== id
    if (taken) found.set(piece, id)
  }
  return found
}

/**
 * Special tokens without an id take those behind the last one, as transformers numbers them when it loads the folder.
 */
export function numberSpecialTokens(vocabulary: Vocabulary, { unnumbered }: AddedTokens, rows: number): void {
  const known = new Set(vocabulary.tokens)
  for (const { text, from } of unnumbered) {
    const piece = text.replaceAll(' ', '▁')
    if (known.has(piece)) continue
    known.add(piece)
    const { tokens, scores, types } = vocabulary
    const id = tokens.length
    const fits = id < rows
    vocabulary.notes = [
      ...(vocabulary.notes ?? []),
      `${from} lists the special token ${JSON.stringify(text)} without an id: ` +
        `${fits ? `taken as token ${id}, the next one` : 'left out, the embedding has no row for it'}`
    ]
    if (!fits) continue
    tokens[id] = piece
    scores[id] = addedScore
    types[id] = TokenType.control
  }
}

/** tokenizer.json spells a byte's character where SentencePiece has the byte: `\t` and `<0x09>`. */
function isSameByte(now: string | undefined, piece: string): boolean {
  return piece.length === 1 && now === `<0x${piece.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}>`
}
