/** The model's own tasks, each with its own endpoint: JSON or multipart in, typed results out. */
import * as z from './vendored'
import { modelName, optional, picture, sampling, stop, timings, usage } from './common'

const generating = {
  model: modelName,
  max_tokens: optional(z.int().min(1)),
  stop,
  ...sampling,
  stream: optional(z.boolean()).meta({
    description: 'Server-sent events: parts as they come, then the answer without them, then [DONE].'
  })
}
const lang = optional(z.string()).meta({ description: 'ISO code of the language; default "en".' })
const onePicture = { image: picture }
const pictures = { image: picture.optional(), images: optional(z.array(picture)) }

export const captionRequest = z
  .strictObject({ ...onePicture, style: optional(z.enum(['short', 'coco', 'long'])), lang, ...generating })
  .meta({ id: 'CaptionRequest' })

export const answerRequest = z
  .strictObject({
    ...pictures,
    question: z.string().min(1),
    lang,
    choices: optional(z.array(z.string().min(1)).min(1)).meta({ description: 'The answer is exactly one of these.' }),
    ...generating
  })
  .meta({ id: 'AnswerRequest' })

const overlap = z.number().min(0).max(0.5).optional()
const tiles = optional(
  z.union(
    [
      z.literal('auto'),
      z.strictObject({ columns: z.int().min(1), rows: z.int().min(1), overlap }),
      z.strictObject({ size: z.int().min(16), overlap })
    ],
    { error: 'Expected "auto", { columns, rows, overlap? } or { size, overlap? }, in a form as JSON' }
  )
).meta({ description: 'Look at a large picture in parts; see docs/tiles.md.' })
const rectangle = z.object({ x: z.number(), y: z.number(), width: z.number(), height: z.number() })
const lookedAt = z.array(rectangle).optional().meta({ description: 'With tiles: what was looked at.' })

export const ocrRequest = z.strictObject({ ...onePicture, tiles, ...generating }).meta({ id: 'OcrRequest' })

export const textResponse = z
  .object({
    model: z.string(),
    text: z.string(),
    finish_reason: z.enum(['stop', 'length']),
    seed: z.int(),
    usage,
    timings
  })
  .meta({ id: 'TextResult' })

export const ocrResponse = z
  .union([textResponse, z.object({ model: z.string(), text: z.string(), timings: z.object({ total_ms: z.number() }) })])
  .meta({ id: 'OcrResult', description: 'With tiles without what a single pass has.' })

const labels = z
  .union([z.string(), z.array(z.string())])
  .meta({ description: 'What to look for: a list, or one text with ";" between the names.' })

const share = z.number().min(0).max(1)
const finding = {
  ...onePicture,
  labels,
  constrain: optional(z.boolean()).meta({ description: 'false: the model may write anything.' }),
  max_objects: optional(z.int().min(1)),
  min_score: optional(share).meta({ description: 'Leave out objects with a lower score; default 0: show all.' }),
  nms: optional(z.union([share, z.strictObject({ iou: share, class_agnostic: optional(z.boolean()) })])),
  tiles,
  logprobs: optional(z.boolean()).meta({
    description: 'Adds `text` and `tokens` with their log-probabilities; not with tiles.'
  }),
  ...generating
}

export const detectRequest = z.strictObject(finding).meta({ id: 'DetectRequest' })

const maskFormat = optional(z.enum(['rle', 'png', 'none'])).meta({
  description: 'rle (default): COCO’s compressed run lengths; png: base64 of a grey picture. Both of the whole picture.'
})
export const segmentRequest = z
  .strictObject({
    ...finding,
    mask_format: maskFormat
  })
  .meta({ id: 'SegmentRequest' })

const place = {
  label: z.string(),
  box: rectangle.meta({ description: 'Pixels.' }),
  normalized: z.object({ y_min: z.number(), x_min: z.number(), y_max: z.number(), x_max: z.number() })
}
const object = {
  ...place,
  score: z.number(),
  info: z
    .object({ tiles: z.array(rectangle) })
    .optional()
    .meta({ description: 'With tiles: those that it is from.' })
}
const codes = z.array(z.int())
const mask = z
  .union([
    z.object({ size: z.array(z.int()), counts: z.string() }).meta({ description: 'rle: [height, width].' }),
    z.string().meta({ description: 'png' })
  ])
  .optional()

const token = z.object({ text: z.string(), logprob: z.number().nullable() })
const found = {
  model: z.string(),
  finish_reason: z.enum(['stop', 'length']),
  seed: z.int(),
  text: z.string().optional(),
  tokens: z.array(token).optional(),
  tiles: lookedAt,
  timings: z.object({ total_ms: z.number(), first_token_ms: z.number() })
}

export const detectResponse = z.object({ objects: z.array(z.object(object)), ...found }).meta({ id: 'DetectResult' })

export const segmentResponse = z
  .object({
    objects: z.array(
      z.object({
        ...object,
        codes,
        mask
      })
    ),
    ...found
  })
  .meta({ id: 'SegmentResult' })

export const parseRequest = z
  .strictObject({
    ...onePicture,
    model: modelName,
    text: z.string().meta({ description: 'What the model wrote about the picture, with its <loc> and <seg> tokens.' }),
    mask_format: maskFormat
  })
  .meta({ id: 'ParseRequest' })

export const parseResponse = z
  .object({ objects: z.array(z.object({ ...place, valid: z.boolean(), codes: codes.nullable(), mask })) })
  .meta({ id: 'ParseResult' })

export const scoreRequest = z
  .strictObject({ ...pictures, model: modelName, prompt: z.string(), suffix: z.string() })
  .meta({ id: 'ScoreRequest' })

export const scoreResponse = z
  .object({
    model: z.string(),
    tokens: z.array(token),
    log_probs: z.array(z.number()),
    total: z.number(),
    mean: z.number()
  })
  .meta({ id: 'ScoreResult' })

export type CaptionRequest = z.output<typeof captionRequest>
export type AnswerRequest = z.output<typeof answerRequest>
export type OcrRequest = z.output<typeof ocrRequest>
export type DetectRequest = z.output<typeof detectRequest>
export type SegmentRequest = z.output<typeof segmentRequest>
export type ScoreRequest = z.output<typeof scoreRequest>
