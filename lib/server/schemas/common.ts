/** Parts of requests and answers that several endpoints share. Names are those of OpenAI's API. */
import { isUint8Array } from '../../base/realms'
import * as z from './vendored'

/** What may be left out, or be null as many clients write it. */
export const optional = <T extends z.ZodType>(schema: T): z.ZodOptional<z.ZodNullable<T>> => schema.nullish()

/** A parameter of OpenAI's that does not change what this model does: anything is taken. */
export const ignored = (): z.ZodOptional<z.ZodAny> => z.any().optional().meta({ description: 'Accepted and ignored.' })

/** A parameter of OpenAI's that would change the answer, but not here: only the values that mean "off" are taken. */
export const off = (why: string, isOff: (value: unknown) => boolean): z.ZodOptional<z.ZodAny> =>
  z
    .any()
    .refine((value) => value === null || isOff(value), { error: why })
    .optional()
    .meta({ description: `Not supported: ${why}` }) as never

export const isEmpty = (value: unknown): boolean =>
  typeof value === 'object' && value !== null && Object.keys(value).length === 0

export const imageText =
  'A data: URL or base64 of a JPEG, PNG, WebP, GIF, TIFF, AVIF, SVG, BMP or PPM; an http(s) URL where the server ' +
  'allows them.'

/** A picture as it comes: text, or the bytes of an upload. */
export type Picture = string | Uint8Array

const isPicture = (value: unknown): value is Picture => typeof value === 'string' || isUint8Array(value)

export const picture = z
  .custom<Picture>(isPicture, { error: 'Expected a data: URL, base64 text or an uploaded file' })
  .meta({ type: 'string', description: imageText })

export const modelName = optional(z.string()).meta({ description: 'One of /v1/models; default: the first.' })

/** How to generate, of every call that does. */
export const sampling = {
  temperature: optional(z.number().min(0).max(2)).meta({ description: '0 (default): always the most probable token.' }),
  top_p: optional(z.number().gt(0).max(1)),
  top_k: optional(z.int().min(0)).meta({ description: 'Sample among the k most probable tokens; 0: off.' }),
  min_p: optional(z.number().min(0).max(1)),
  repeat_penalty: optional(z.number().gt(0)).meta({
    description: 'Divides the score of tokens that occurred; 1: off.'
  }),
  seed: optional(z.int()).meta({ description: 'The same seed and request give the same text.' })
}

const stopText = z.string().min(1)
export const stop = optional(z.union([stopText, z.array(stopText).max(16)])).meta({
  description: 'Generation ends before the first of these texts.'
})

// No record, which would list all names at once: the translator of schemas counts them first.
export const jsonSchemaValue = z
  .any()
  .refine(
    (value): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value),
    'Invalid input: expected object'
  )
  .meta({ type: 'object', description: 'A JSON Schema; see docs/constraints.md.' })

const namedSchema = {
  name: optional(z.string()),
  description: optional(z.string()),
  strict: optional(z.boolean()),
  schema: jsonSchemaValue
}
const plainFormats = [z.object({ type: z.literal('text') }), z.object({ type: z.literal('json_object') })] as const

/** Chat completions' `response_format`. */
export const responseFormat = z.discriminatedUnion('type', [
  ...plainFormats,
  z.object({ type: z.literal('json_schema'), json_schema: z.object(namedSchema) })
])

/** Responses' `text.format`. */
export const textFormat = z.discriminatedUnion('type', [
  ...plainFormats,
  z.object({ type: z.literal('json_schema'), ...namedSchema })
])

/** What chat completions and responses have in common, but for how one asks. */
export const openAiParameters = {
  model: modelName,
  stream: optional(z.boolean()),
  ...sampling,
  top_logprobs: optional(z.int().min(0).max(20)),
  user: ignored(),
  store: ignored(),
  service_tier: ignored(),
  safety_identifier: ignored(),
  prompt_cache_key: ignored(),
  prompt_cache_options: ignored(),
  prompt_cache_retention: ignored(),
  parallel_tool_calls: ignored(),
  moderation: ignored(),
  tool_choice: off('the model cannot call tools', (v) => v === 'none' || v === 'auto'),
  tools: off('the model cannot call tools', isEmpty)
}

export const constraint = z
  .union([
    z.enum(['detect', 'segment']),
    z.strictObject({ choices: z.array(z.string().min(1)).min(1) }),
    z.strictObject({ regex: z.string() })
  ])
  .meta({ description: 'Only output of this form: a task, one of several texts, or what matches an expression.' })

export const errorBody = z
  .object({
    error: z.object({
      message: z.string(),
      type: z.string(),
      param: z.string().nullable(),
      code: z.string().meta({ description: 'ERR_…: stable, see docs/api.md' })
    })
  })
  .meta({ id: 'Error' })

export const timings = z
  .object({
    preprocess_ms: z.number(),
    queue_ms: z.number(),
    vision_ms: z.number(),
    prefill_ms: z.number(),
    first_token_ms: z.number(),
    decode_ms: z.number(),
    tokens_per_second: z.number()
  })
  .meta({ id: 'Timings', description: 'Milliseconds, as docs/api.md describes a result’s timings.' })

export const usage = z
  .object({
    prompt_tokens: z.int(),
    completion_tokens: z.int(),
    total_tokens: z.int(),
    prompt_tokens_details: z.object({ image_tokens: z.int(), text_tokens: z.int(), cached_tokens: z.int() })
  })
  .meta({ id: 'Usage' })
