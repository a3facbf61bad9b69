/** tokenizer.model (a SentencePiece ModelProto) as GGUF's vocabulary arrays. */
import { PaliGemmaError } from '../base/errors'
import { Turns } from '../base/turns'

/** GGUF's token types; SentencePiece numbers its piece types in the same way. */
export const TokenType = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const

/** How an added token is found, by the names of Hugging Face's AddedToken; the engine's TokenFlag. */
export const TokenFlag = { lstrip: 1, rstrip: 2, single_word: 4, normalized: 8 } as const

/** Another one: U+2581 in the token's name is that character, not how pieces spell a space. */
export const markFlag = 16

export interface Vocabulary {
  tokens: string[]
  scores: number[]
  types: number[]
  unkId: number
  /** Of <image>; -1 where there is none. */
  imageId: number
  /** {@link TokenFlag} by id, of the tokens that have some. */
  flags?: Map<number, number>
  /** What the user should know. */
  notes?: string[]
}

// What llama.cpp's converter gives the rows that only fill the table.
const paddingScore = -10000

/**
 * One entry per row of the embedding. Only <image> and tokens that fill a table may lie beyond its end: nobody embeds
 * them.
 */
export function padVocabulary(where: string, vocabulary: Vocabulary, rows: number): Vocabulary {
  const { tokens, scores, types } = vocabulary
  const needed = tokens.reduce(
    (count, text, id) => (text === undefined || text === '<image>' || types[id] === TokenType.unused ? count : id + 1),
    0
  )
  if (needed > rows) {
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${where} hold ${needed} tokens, but the embedding has only ${rows} rows; the files belong to different models`
    )
  }
  for (const list of [tokens, scores, types]) list.length = Math.min(list.length, rows)
  if (vocabulary.imageId >= rows) vocabulary.imageId = -1
  for (let id = 0; id < rows; id++) {
    if (tokens[id] !== undefined) continue
    tokens[id] = `[PAD${id}]`
    scores[id] = paddingScore
    types[id] = TokenType.unused
  }
  return vocabulary
}

/** ModelProto: field 1 = repeated SentencePiece, 2 = TrainerSpec, 3 = NormalizerSpec. */
export async function parseSentencePiece(file: string, bytes: Buffer): Promise<Vocabulary> {
  const turns = new Turns()
  const vocabulary: Vocabulary = { tokens: [], scores: [], types: [], unkId: 3, imageId: -1 }
  for (const field of fields(file, bytes, 0, bytes.length)) {
    if (turns.due) await turns.next()
    if (field.number === 1 && field.wire === 2) addPiece(file, bytes, field, vocabulary)
    if (field.number === 2 && field.wire === 2) checkTrainer(file, bytes, field)
    if (field.number === 3 && field.wire === 2) checkNormalizer(file, bytes, field)
  }
  if (vocabulary.tokens.length === 0) invalid(file, 'holds no pieces; it is no SentencePiece model')
  const unknown = vocabulary.types.indexOf(TokenType.unknown)
  if (unknown >= 0) vocabulary.unkId = unknown
  return vocabulary
}

/** SentencePiece: field 1 = piece, 2 = score, 3 = type (default NORMAL). */
function addPiece(file: string, bytes: Buffer, range: Field, vocabulary: Vocabulary): void {
  let text = ''
  let score = 0
  let type: number = TokenType.normal
  for (const field of fields(file, bytes, range.start, range.end)) {
    if (field.number === 1 && field.wire === 2) text = bytes.toString('utf8', field.start, field.end)
    if (field.number === 2 && field.wire === 5) score = bytes.readFloatLE(field.start)
    if (field.number === 3 && field.wire === 0) type = field.value
  }
  if (type < 1 || type > 6)
    invalid(file, `piece ${vocabulary.tokens.length} (${JSON.stringify(text)}) has the unknown type ${type}`)
  if (!Number.isFinite(score))
    invalid(file, `piece ${vocabulary.tokens.length} (${JSON.stringify(text)}) has the score ${score}`)
  vocabulary.tokens.push(text)
  vocabulary.scores.push(score)
  vocabulary.types.push(type)
}

/** TrainerSpec: field 3 = model_type (1 unigram, 2 BPE). */
function checkTrainer(file: string, bytes: Buffer, range: Field): void {
  for (const field of fields(file, bytes, range.start, range.end)) {
    if (field.number === 3 && field.wire === 0 && field.value !== 2) {
      throw new PaliGemmaError(
        'ERR_MODEL_UNSUPPORTED',
        `${file} is not a BPE model (model_type ${field.value}), but Gemma's is`
      )
    }
  }
}

/** NormalizerSpec: field 1 = name, 3 = add_dummy_prefix, 4 = remove_extra_whitespaces. Gemma's does nothing. */
function checkNormalizer(file: string, bytes: Buffer, range: Field): void {
  for (const field of fields(file, bytes, range.start, range.end)) {
    if (field.number === 1 && field.wire === 2) {
      const name = bytes.toString('utf8', field.start, field.end)
      if (name !== 'identity' && name !== '') {
        throw new PaliGemmaError(
          'ERR_MODEL_UNSUPPORTED',
          `${file} normalises text with ${name}, but Gemma's tokenizer leaves text as it is`
        )
      }
    }
    if ((field.number === 3 || field.number === 4) && field.wire === 0 && field.value !== 0) {
      throw new PaliGemmaError(
        'ERR_MODEL_UNSUPPORTED',
        `${file} has ${field.number === 3 ? 'add_dummy_prefix' : 'remove_extra_whitespaces'} on, but Gemma's ` +
          'tokenizer leaves spaces as they are'
      )
    }
  }
}

/** One protobuf field; `start` and `end` are its payload's bytes, `value` a varint's value. */
interface Field {
  number: number
  wire: number
  start: number
  end: number
  value: number
}

/** The fields of one message, bounds checked. Wire types: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes. */
function* fields(file: string, bytes: Buffer, begin: number, end: number): Generator<Field> {
  let position = begin
  const varint = (): number => {
    let value = 0
    for (let shift = 0; shift < 70; shift += 7) {
      if (position >= end) invalid(file, `a protobuf message breaks off at byte ${position}`)
      const byte = bytes[position++]!
      value += (byte & 0x7f) * 2 ** shift
      if (byte < 0x80) return value
    }
    invalid(file, `a protobuf number at byte ${position} is too long`)
  }
  while (position < end) {
    const at = position
    const tag = varint()
    const number = Math.floor(tag / 8)
    const wire = tag % 8
    let value = 0
    let length = 0
    if (wire === 0) value = varint()
    else if (wire === 1) length = 8
    else if (wire === 2) length = varint()
    else if (wire === 5) length = 4
    else invalid(file, `byte ${at} is no protobuf field; it is no SentencePiece model`)
    if (number === 0 || length > end - position)
      invalid(file, `a protobuf field at byte ${at} reaches past its end; the file is damaged`)
    yield { number, wire, start: position, end: position + length, value }
    position += length
  }
}

function invalid(file: string, what: string): never {
  throw new PaliGemmaError('ERR_MODEL_INVALID', `${file}: ${what}`)
}
