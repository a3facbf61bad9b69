/** A call of the AI SDK as one of ours. */
import type { GenerateOptions } from '../api/options/options'
import { lastQuestion, type Turn } from '../api/request/turns'
import { PaliGemmaError } from '../base/errors'
import type { JsonSchema } from '../output/schema/json-schema'
import type { ImageInput } from '../images/image-input'
import type { CallOptions, FilePart, Message, Part, Warning } from './types'

export interface Request {
  options: GenerateOptions
  warnings: Warning[]
}

const seeds = 2 ** 48

export function requestOf(call: CallOptions): Request {
  const { prompt, pictures } = lastQuestion(call.prompt.map(turnOf))
  if (prompt === '')
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      'Expected a user message with text, such as "caption en", for prompt'
    )
  const { seed, stopSequences, responseFormat } = call
  const options: GenerateOptions = {
    prompt,
    images: pictures,
    maxTokens: call.maxOutputTokens,
    temperature: call.temperature,
    topP: call.topP,
    topK: call.topK,
    seed: seed === undefined ? undefined : ((seed % seeds) + seeds) % seeds,
    stop: stopSequences && stopSequences.length > 0 ? stopSequences : undefined,
    constrain: responseFormat?.type === 'json' ? { jsonSchema: schemaOf(responseFormat.schema) } : undefined,
    signal: call.abortSignal,
    // what the SDK has no name for: constrain, adapters, minP, beams, ...; generate checks it
    ...call.providerOptions?.['paligemma']
  }
  return { options, warnings: warningsOf(call) }
}

const schemaOf = (schema: unknown): JsonSchema =>
  (schema as JsonSchema | undefined) ?? { type: 'object', additionalProperties: {} }

function warningsOf({ prompt, tools = [], presencePenalty, frequencyPenalty }: CallOptions): Warning[] {
  const warnings: Warning[] = []
  const unsupported = (feature: string, details: string): void =>
    void warnings.push({ type: 'unsupported', feature, details })
  if (tools.length > 0) unsupported('tools', 'the model cannot call tools')
  if (presencePenalty) unsupported('presencePenalty', 'use providerOptions.paligemma.repeatPenalty')
  if (frequencyPenalty) unsupported('frequencyPenalty', 'use providerOptions.paligemma.repeatPenalty')
  if (prompt.some(({ role }) => role !== 'user'))
    warnings.push({ type: 'other', message: 'The model knows single turns: the last user message is its whole prompt' })
  return warnings
}

function turnOf({ role, content }: Message): Turn<ImageInput> {
  const parts = typeof content === 'string' ? [{ type: 'text', text: content }] : content
  return {
    fromUser: role === 'user',
    texts: parts.flatMap((part) => ('text' in part && part.type === 'text' ? [part.text] : [])),
    pictures: role === 'user' ? (parts as readonly Part[]).filter(isFile).map(pictureOf) : []
  }
}

const isFile = (part: Part): part is FilePart => part.type === 'file' && 'data' in part

function pictureOf({ mediaType, data }: FilePart): ImageInput {
  if (!/^image\b/.test(mediaType)) throw wrongFile(`a file of type ${mediaType}`)
  const given = typeof data === 'object' && 'type' in data ? untagged(data) : data
  if (typeof given !== 'string' || /^(?:data|https?):/i.test(given)) return given
  // never a path: the SDK's texts are base64
  return Buffer.from(given, 'base64')
}

function untagged(data: Extract<FilePart['data'], { type: string }>): string | Uint8Array | URL {
  if ('url' in data) return data.url as URL
  if ('data' in data && data.type === 'data') return data.data as string | Uint8Array
  throw wrongFile(`a file as ${data.type}`)
}

const wrongFile = (given: string): PaliGemmaError =>
  new PaliGemmaError('ERR_INVALID_OPTION', `Expected pictures as bytes, base64 or URL for prompt but received ${given}`)
