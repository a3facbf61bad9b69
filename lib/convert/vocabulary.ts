/** Where a converted model's vocabulary comes from: the checkpoint's directory, a tokenizer.model, or another GGUF. */
import { stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { PaliGemmaError } from '../base/errors'
import type { NativeMetadataArray } from '../engine/native'
import type { SourceConfig } from './config'
import { GgufSource } from './gguf-source'
import { padVocabulary, readVocabulary, TokenType, type Vocabulary } from '../formats/sentencepiece'

/** `given`: the user's choice; else the checkpoint's own, which npz archives only have beside them. */
export async function openVocabulary(
  given: string | undefined,
  source: string,
  kind: 'directory' | 'npz',
  rows: number,
  config: SourceConfig
): Promise<Vocabulary> {
  const { imageTokenId } = config
  if (given === undefined) {
    if (kind === 'directory') return await readVocabulary(join(source, 'tokenizer.model'), rows, imageTokenId)
    const beside = join(dirname(source), 'tokenizer.model')
    if (await stat(beside).catch(() => undefined)) return await readVocabulary(beside, rows, imageTokenId)
    throw new PaliGemmaError(
      'ERR_MODEL_NOT_FOUND',
      `${source} holds no tokenizer, and there is no tokenizer.model beside it; pass --tokenizer (tokenizer) with a tokenizer.model, a Hugging Face directory or a GGUF of any PaliGemma`
    )
  }
  const info = await stat(given).catch((cause: Error) => {
    throw new PaliGemmaError('ERR_MODEL_NOT_FOUND', `${given} cannot be read: ${cause.message}`, { cause })
  })
  if (info.isDirectory()) return await readVocabulary(join(given, 'tokenizer.model'), rows, imageTokenId)
  if (given.endsWith('.gguf')) return await ggufVocabulary(given, rows)
  return await readVocabulary(given, rows, imageTokenId)
}

async function ggufVocabulary(path: string, rows: number): Promise<Vocabulary> {
  const file = await GgufSource.open(path)
  try {
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
    const tokens = list('tokenizer.ggml.tokens', (value) => typeof value === 'string')
    const scores = list('tokenizer.ggml.scores', (value) => typeof value === 'number')
    const types = list('tokenizer.ggml.token_type', (value) => typeof value === 'number')
    if (scores.length !== tokens.length || types.length !== tokens.length) {
      throw new PaliGemmaError(
        'ERR_MODEL_INVALID',
        `${path}: tokenizer.ggml.tokens, .scores and .token_type are of different lengths`
      )
    }
    const unknown = types.indexOf(TokenType.unknown)
    return padVocabulary(
      path,
      { tokens, scores, types, unkId: unknown < 0 ? 3 : unknown, imageId: tokens.indexOf('<image>') },
      rows
    )
  } finally {
    await file.close()
  }
}
