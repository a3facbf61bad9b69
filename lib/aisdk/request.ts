/** A call of the AI SDK as one of ours. */
import type { GenerateOptions } from '../api/options/options'
import { lastQuestion, type Turn } from '../api/request/turns'
import { PaliGemmaError } from '../base/errors'
import type { JsonSchema } from '../output/schema/json-schema'
import { isRecord, isUrl } from '../base/realms'
import { check, isName, isText, readFields, rule, show, take, wrongOption } from '../base/validate'
import { isBytes, type ImageInput } from '../images/image-input'
import type { CallOptions, Message, Warning } from './types'

export interface Request {
  options: GenerateOptions
  warnings: Warning[]
}

const seeds = 2 ** 48

const callKeys = [
  ...['prompt', 'maxOutputTokens', 'temperature', 'stopSequences', 'topP', 'topK', 'presencePenalty'],
  ...['frequencyPenalty', 'responseFormat', 'seed', 'tools', 'abortSignal', 'providerOptions']
]
const isFilled = (value: unknown): boolean => typeof value === 'object' && value !== null
const messagesRule = rule.listOf('messages ({ role, content })', isFilled)
const partsRule = rule.listOf('parts ({ type, ... })', isFilled)
const listRule = rule.listOf('tools', () => true)
const stopRule = rule.listOf('strings', isText)
const seedRule = rule.integer(Number.MIN_SAFE_INTEGER)

/** @throws PaliGemmaError ERR_INVALID_OPTION */
export function requestOf(given: CallOptions): Request {
  const call = readFields('the call', given, callKeys) as unknown as CallOptions
  const messages = take('prompt', call.prompt, messagesRule)
  const { prompt, pictures } = lastQuestion(messages.map((message, i) => turnOf(`prompt[${i}]`, message)))
  if (prompt === '')
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      'Expected a user message with text, such as "caption en", for prompt'
    )
  const stop = take('stopSequences', call.stopSequences ?? [], stopRule)
  const options: GenerateOptions = {
    prompt,
    images: pictures,
    maxTokens: call.maxOutputTokens,
    temperature: call.temperature,
    topP: call.topP,
    topK: call.topK,
    seed: call.seed === undefined ? undefined : seedOf(call.seed),
    stop: stop.length > 0 ? stop : undefined,
    constrain: constraintOf(call.responseFormat),
    signal: call.abortSignal,
    // what the SDK has no name for: constrain, adapters, minP, beams, ...; generate checks it
    ...ownOptions(call.providerOptions)
  }
  return { options, warnings: warningsOf(call, messages) }
}

function seedOf(seed: number): number {
  check('seed', seed, seedRule)
  return ((seed % seeds) + seeds) % seeds
}

function constraintOf(format: CallOptions['responseFormat']): GenerateOptions['constrain'] {
  if (format === undefined) return undefined
  const { type, schema } = readFields('responseFormat', format, ['type', 'schema'])
  return type === 'json'
    ? { jsonSchema: (schema as JsonSchema | undefined) ?? { type: 'object', additionalProperties: {} } }
    : undefined
}

function ownOptions(given: CallOptions['providerOptions']): object {
  if (given === undefined) return {}
  const { paligemma } = readFields('providerOptions', given, ['paligemma'])
  if (paligemma === undefined) return {}
  const name = 'providerOptions.paligemma'
  try {
    if (isRecord(paligemma)) return { ...paligemma }
  } catch (error) {
    throw wrongOption(name, 'object', paligemma, error)
  }
  throw wrongOption(name, 'object', paligemma)
}

function warningsOf(call: CallOptions, messages: readonly Message[]): Warning[] {
  const warnings: Warning[] = []
  const unsupported = (feature: string, details: string): void =>
    void warnings.push({ type: 'unsupported', feature, details })
  if (take('tools', call.tools ?? [], listRule).length > 0) unsupported('tools', 'the model cannot call tools')
  for (const penalty of ['presencePenalty', 'frequencyPenalty'] as const)
    if (call[penalty]) unsupported(penalty, 'use providerOptions.paligemma.repeatPenalty')
  if (messages.some((message) => message.role !== 'user'))
    warnings.push({ type: 'other', message: 'The model knows single turns: the last user message is its whole prompt' })
  return warnings
}

function turnOf(name: string, message: Message): Turn<ImageInput> {
  const { role, content } = readFields(name, message, ['role', 'content'])
  const parts = typeof content === 'string' ? [{ type: 'text', text: content }] : takeParts(`${name}.content`, content)
  const texts = parts.flatMap(({ type, text }) => (type === 'text' && text !== undefined ? [text] : []))
  for (const text of texts) check(`${name}.content`, text, rule.text)
  return {
    fromUser: role === 'user',
    texts: texts as string[],
    pictures: role === 'user' ? parts.filter(isFile).map(pictureOf) : []
  }
}

type Fields = Record<string, unknown>

function takeParts(name: string, content: unknown): Fields[] {
  const parts = take<unknown[]>(name, content as unknown[], partsRule)
  return parts.map((part, i) => readFields(`${name}[${i}]`, part, ['type', 'text', 'mediaType', 'data']))
}

const isFile = (part: Fields): boolean => part['type'] === 'file' && part['data'] !== undefined

function pictureOf({ mediaType, data }: Fields): ImageInput {
  if (!isName(mediaType) || !/^image\b/.test(mediaType)) throw wrongFile(`a file of type ${show(mediaType)}`)
  const tagged = isFilled(data) && !isUrl(data) && !isBytes(data)
  const given = (tagged ? untagged(data) : data) as string | Uint8Array | URL
  if (typeof given !== 'string' || /^(?:data|https?):/i.test(given)) return given
  return `data:image;base64,${given}` // never a path: the SDK's texts are base64
}

function untagged(tagged: unknown): unknown {
  const { type, url, data } = readFields('a file', tagged, ['type', 'url', 'data'])
  if (url !== undefined) return url
  if (type === 'data' && data !== undefined) return data
  throw wrongFile(`a file as ${show(type)}`)
}

const wrongFile = (given: string): PaliGemmaError =>
  new PaliGemmaError('ERR_INVALID_OPTION', `Expected pictures as bytes, base64 or URL for prompt but received ${given}`)
