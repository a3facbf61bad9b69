/** `/v1/chat/completions`: OpenAI's parameters, with what this model makes of them. */
import * as z from './vendored'
import {
  constraint,
  ignored,
  imageText,
  isEmpty,
  off,
  openAiParameters,
  optional,
  responseFormat,
  stop,
  timings,
  usage
} from './common'

const textPart = z.object({ type: z.literal('text'), text: z.string() })
const imagePart = z.object({
  type: z.literal('image_url'),
  image_url: z.union([
    z.string(),
    z.object({ url: z.string().meta({ description: imageText }), detail: optional(z.string()) })
  ])
})
const refusalPart = z.object({ type: z.literal('refusal'), refusal: z.string() })
const part = z.discriminatedUnion('type', [textPart, imagePart, refusalPart], {
  error: 'Expected a part of type "text" or "image_url"; audio, video and files are not supported'
})

const message = z
  .looseObject({
    role: z.enum(['system', 'developer', 'user', 'assistant', 'tool', 'function']),
    content: optional(z.union([z.string(), z.array(part)]))
  })
  .meta({ id: 'ChatMessage' })

/** Of OpenAI's parameters those that this model has nothing to do with. */
const others = {
  metadata: ignored(),
  reasoning_effort: ignored(),
  verbosity: ignored(),
  prediction: ignored(),
  functions: off('the model cannot call functions', isEmpty),
  function_call: off('the model cannot call functions', (v) => v === 'none' || v === 'auto'),
  frequency_penalty: off('use repeat_penalty', (v) => v === 0),
  presence_penalty: off('use repeat_penalty', (v) => v === 0),
  logit_bias: off('use constrain', isEmpty),
  audio: off('the model writes text only', () => false),
  modalities: off('the model writes text only', (v) => Array.isArray(v) && v.every((item) => item === 'text')),
  web_search_options: off('nothing leaves this server', () => false)
}

export const chatRequest = z
  .strictObject({
    messages: z
      .array(message)
      .min(1)
      .meta({
        description:
          'The prompt is the text of the last user message, such as "caption en"; its pictures, or else those of the ' +
          'last message that has some, are what it is about. Other messages are not read: the model knows ' +
          'single turns only.'
      }),
    stream_options: optional(z.object({ include_usage: optional(z.boolean()), include_obfuscation: ignored() })),
    n: optional(z.int().min(1).max(16)),
    max_tokens: optional(z.int().min(1)),
    max_completion_tokens: optional(z.int().min(1)),
    stop,
    logprobs: optional(z.boolean()),
    response_format: optional(responseFormat),
    constrain: optional(constraint),
    ...others,
    ...openAiParameters
  })
  .meta({ id: 'ChatCompletionRequest' })

export type ChatRequest = z.output<typeof chatRequest>
export type ChatMessage = z.output<typeof message>

const tokenLogprob = z.object({
  token: z.string(),
  logprob: z.number(),
  bytes: z.array(z.int()).nullable(),
  top_logprobs: z.array(z.object({ token: z.string(), logprob: z.number(), bytes: z.array(z.int()).nullable() }))
})

export const chatResponse = z
  .object({
    id: z.string(),
    object: z.literal('chat.completion'),
    created: z.int(),
    model: z.string(),
    system_fingerprint: z.string(),
    choices: z.array(
      z.object({
        index: z.int(),
        message: z.object({ role: z.literal('assistant'), content: z.string(), refusal: z.null() }),
        logprobs: z.object({ content: z.array(tokenLogprob), refusal: z.null() }).nullable(),
        finish_reason: z.enum(['stop', 'length']),
        seed: z.int()
      })
    ),
    usage,
    timings
  })
  .meta({ id: 'ChatCompletion' })
