/** Requests as options of `generate`, and results in OpenAI's words. */
import type { GenerateOptions } from '../api/options/options'
import type { GeneratedToken, GenerateResult } from '../api/options/results'
import type { Constraint } from '../output/constraint'

interface Sampling {
  temperature?: number | null | undefined
  top_p?: number | null | undefined
  top_k?: number | null | undefined
  min_p?: number | null | undefined
  repeat_penalty?: number | null | undefined
  seed?: number | null | undefined
  stop?: string | string[] | null | undefined
}

type SamplingPart = Pick<GenerateOptions, 'temperature' | 'topP' | 'topK' | 'minP' | 'repeatPenalty' | 'seed' | 'stop'>

const seeds = 2 ** 48

/** `index`: of several outputs of one request; each has a seed of its own. */
export function samplingOf(body: Sampling, index = 0): SamplingPart {
  const { stop, seed } = body
  const texts = typeof stop === 'string' ? [stop] : (stop ?? [])
  return {
    temperature: body.temperature ?? undefined,
    topP: body.top_p ?? undefined,
    topK: body.top_k ?? undefined,
    minP: body.min_p ?? undefined,
    repeatPenalty: body.repeat_penalty ?? undefined,
    // OpenAI's may be negative
    seed: typeof seed === 'number' ? (((seed + index) % seeds) + seeds) % seeds : undefined,
    stop: texts.length > 0 ? texts : undefined
  }
}

/** Of calls that tell no times of their own. */
export const untimed: GenerateResult['timings'] = {
  preprocessMs: 0,
  queueMs: 0,
  visionMs: 0,
  prefillMs: 0,
  firstTokenMs: 0,
  decodeMs: 0,
  decodeTokensPerSecond: 0
}

interface Format {
  type: 'text' | 'json_object' | 'json_schema'
  schema?: Record<string, unknown>
}

/** "json_object" is any object; what fits no schema of OpenAI's either is refused by our translator, by name. */
export function constraintOf(
  format: Format | undefined,
  constrain: 'detect' | 'segment' | Constraint | null | undefined
): GenerateOptions['constrain'] {
  if (format?.type === 'json_schema') return { jsonSchema: format.schema! }
  if (format?.type === 'json_object') return { jsonSchema: { type: 'object', additionalProperties: {} } }
  return constrain ?? undefined
}

export function usageOf({ imageTokens, promptTokens, completionTokens }: GenerateResult['usage']): {
  prompt_tokens: number
  completion_tokens: number
  total_tokens: number
  prompt_tokens_details: { image_tokens: number; text_tokens: number; cached_tokens: number }
} {
  const prompt = imageTokens + promptTokens
  return {
    prompt_tokens: prompt,
    completion_tokens: completionTokens,
    total_tokens: prompt + completionTokens,
    prompt_tokens_details: { image_tokens: imageTokens, text_tokens: promptTokens, cached_tokens: 0 }
  }
}

/** Several outputs of one request share its prompt. */
export function usageOfAll(all: readonly GenerateResult['usage'][]): ReturnType<typeof usageOf> {
  const completionTokens = all.reduce((sum, usage) => sum + usage.completionTokens, 0)
  return usageOf({ ...all[0]!, completionTokens })
}

export function timingsOf(timings: GenerateResult['timings']): Record<string, number> {
  const round = (ms: number): number => Math.round(ms * 1000) / 1000
  return {
    preprocess_ms: round(timings.preprocessMs),
    queue_ms: round(timings.queueMs),
    vision_ms: round(timings.visionMs),
    prefill_ms: round(timings.prefillMs),
    first_token_ms: round(timings.firstTokenMs),
    decode_ms: round(timings.decodeMs),
    tokens_per_second: round(timings.decodeTokensPerSecond)
  }
}

interface Logprob {
  token: string
  logprob: number
  bytes: number[]
}

const logprob = (token: string, value: number | undefined): Logprob => ({
  token,
  // OpenAI's word for "never"
  logprob: value === undefined || !Number.isFinite(value) ? -9999 : value,
  bytes: [...Buffer.from(token)]
})

export function logprobOf({ text, logProb, top = [] }: GeneratedToken): Logprob & { top_logprobs: Logprob[] } {
  return { ...logprob(text, logProb), top_logprobs: top.map((other) => logprob(other.text, other.logProb)) }
}
