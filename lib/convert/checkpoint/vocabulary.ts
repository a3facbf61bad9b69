/** Where a converted model's vocabulary comes from: the checkpoint's directory, a tokenizer's file, or another GGUF. */
import { stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { PaliGemmaError } from '../../base/errors'
import { firstBytes } from '../../base/first-bytes'
import type { NativeMetadataArray } from '../../engine/native-gguf'
import { padVocabulary, parseSentencePiece, TokenType, type Vocabulary } from '../../formats/sentencepiece'
import { parseTokenizerJson } from '../../formats/tokenizer-json'
import { applyAddedTokens, numberSpecialTokens, readAddedTokens } from './added-tokens'
import { readJson, readRegularFile } from '../../formats/fields'
import { GgufSource } from '../gguf/source'

export interface VocabularyOptions {
  /** The user's choice; else the checkpoint's own, which npz archives only have beside them. */
  tokenizer: string | undefined
  source: string
  kind: 'directory' | 'npz'
  /** Of the embedding: the vocabulary gets as many entries. */
  rows: number
  imageTokenId: number | undefined
  /** Folders of adapters that are merged: they may name tokens that were added for them. */
  adapters: readonly string[]
}

export async function openVocabulary(options: VocabularyOptions): Promise<Vocabulary> {
  const { tokenizer, source, kind, rows } = options
  if (tokenizer === undefined) {
    if (kind === 'directory') return await folderVocabulary(source, options)
    const beside = dirname(source)
    const names = ['tokenizer.model', 'tokenizer.json']
    if ((await Promise.all(names.map(async (name) => await exists(join(beside, name))))).some(Boolean))
      return await folderVocabulary(beside, options)
    throw new PaliGemmaError(
      'ERR_MODEL_NOT_FOUND',
      `${source} holds no tokenizer, and there is no tokenizer.model beside it; pass --tokenizer (tokenizer) with a ` +
        'tokenizer.model, a Hugging Face directory or a GGUF of any PaliGemma'
    )
  }
  const info = await stat(tokenizer).catch((cause: Error) => {
    throw new PaliGemmaError('ERR_MODEL_NOT_FOUND', `${tokenizer} cannot be read: ${cause.message}`, { cause })
  })
  if (info.isDirectory()) return await folderVocabulary(tokenizer, options)
  const start = await firstBytes(tokenizer, 4)
  if (start === 'GGUF') {
    const vocabulary = await ggufVocabulary(tokenizer)
    for (const dir of options.adapters) applyAddedTokens(vocabulary, await readAddedTokens(dir))
    return padVocabulary(tokenizer, vocabulary, rows)
  }
  return await completed(dirname(tokenizer), await fileVocabulary(tokenizer), options)
}

const exists = async (path: string): Promise<boolean> =>
  await stat(path).then(
    () => true,
    () => false
  )

/** tokenizer.model, or tokenizer.json where newer libraries saved nothing else. */
async function folderVocabulary(dir: string, options: VocabularyOptions): Promise<Vocabulary> {
  const names = ['tokenizer.model', 'tokenizer.json'].map((name) => join(dir, name))
  for (const file of names) if (await exists(file)) return await completed(dir, await fileVocabulary(file), options)
  throw new PaliGemmaError(
    'ERR_MODEL_NOT_FOUND',
    `${names[0]} does not exist, nor does tokenizer.json; download one of them from the model's page, or pass ` +
      '--tokenizer'
  )
}

interface FileVocabulary {
  file: string
  vocabulary: Vocabulary
}

async function fileVocabulary(file: string): Promise<FileVocabulary> {
  const start = await firstBytes(file, 64)
  if (/^\s*\{/.test(start)) return { file, vocabulary: await parseTokenizerJson(await readJson(file)) }
  const bytes = await readRegularFile(file, maxModelBytes)
  return { file, vocabulary: await parseSentencePiece(file, bytes ?? Buffer.alloc(0)) }
}

// tokenizer.model of 257,000 pieces has 4.3 MB.
const maxModelBytes = 256 << 20

/** With the tokens that the folder and the adapters name, one entry per row of the embedding. */
async function completed(
  dir: string,
  { file, vocabulary }: FileVocabulary,
  { rows, imageTokenId, adapters }: VocabularyOptions
): Promise<Vocabulary> {
  const own = await readAddedTokens(dir)
  applyAddedTokens(vocabulary, own)
  const others = await Promise.all(adapters.map(async (adapter) => await readAddedTokens(adapter)))
  for (const other of others) applyAddedTokens(vocabulary, other)
  placeImage(dir, vocabulary, imageTokenId)
  for (const added of [own, ...others]) numberSpecialTokens(vocabulary, added, rows)
  return padVocabulary(`${file} and the added tokens`, vocabulary, rows)
}

/** config.json may be the only file that says where <image> is. */
function placeImage(dir: string, vocabulary: Vocabulary, imageTokenId: number | undefined): void {
  const { tokens, scores, types } = vocabulary
  if (imageTokenId !== undefined && tokens[imageTokenId] === undefined && !tokens.includes('<image>')) {
    tokens[imageTokenId] = '<image>'
    scores[imageTokenId] = -1000
  }
  vocabulary.imageId = tokens.indexOf('<image>')
  if (vocabulary.imageId >= 0) types[vocabulary.imageId] = TokenType.control
  if (imageTokenId !== undefined && vocabulary.imageId !== imageTokenId) {
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${join(dir, 'config.json')}: image_token_index is ${imageTokenId}, but <image> is token ${vocabulary.imageId} ` +
        'of the tokenizer'
    )
  }
}

async function ggufVocabulary(path: string): Promise<Vocabulary> {
  const file = await GgufSource.open(path)
  try {
    return vocabularyOf(file)
  } finally {
    await file.close()
  }
}

/** What an open GGUF's metadata hold. */
export function vocabularyOf(file: GgufSource): Vocabulary {
  const { path } = file
  const list = <T>(key: string, fits: (value: unknown) => value is T): T[] => {
    const values: unknown = (file.value(key) as NativeMetadataArray | undefined)?.values
    if (!Array.isArray(values) || !values.every(fits)) {
      throw new PaliGemmaError(
        'ERR_MODEL_INVALID',
        `${path}: metadata key ${key} is missing or of a wrong type; the file holds no PaliGemma tokenizer`
      )
    }
    return values
  }
  const isNumber = (value: unknown) => typeof value === 'number'
  const numbers = (key: string) => (file.value(key) === undefined ? [] : list(key, isNumber))
  const tokens = list('tokenizer.ggml.tokens', (value) => typeof value === 'string')
  const scores = list('tokenizer.ggml.scores', isNumber)
  const types = list('tokenizer.ggml.token_type', isNumber)
  if (scores.length !== tokens.length || types.length !== tokens.length) {
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${path}: tokenizer.ggml.tokens, .scores and .token_type are of different lengths`
    )
  }
  const unknown = types.indexOf(TokenType.unknown)
  const ids = numbers('paligemma.added_tokens.ids')
  const flags = new Map(numbers('paligemma.added_tokens.flags').map((flag, i) => [ids[i]!, flag]))
  return { tokens, scores, types, unkId: unknown < 0 ? 3 : unknown, imageId: tokens.indexOf('<image>'), flags }
}
