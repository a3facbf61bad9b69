/** How pictures become what the model sees: options of `preprocessImage`, and of loading a model. */
import { rule, type Rules } from '../base/validate'

/** Limits on a picture that is decoded. */
export interface DecodingOptions {
  /** As in {@link LoadOptions}. */
  maxImagePixels?: number | undefined
  /** As in {@link LoadOptions}. */
  decodeTimeoutMs?: number | undefined
  /** As in {@link LoadOptions}. */
  allowPrivateAddresses?: boolean | undefined
}

/** Of a call that decodes pictures. */
export interface DecodingCallOptions extends DecodingOptions {
  /** Aborting rejects at once with the signal's reason. */
  signal?: AbortSignal | undefined
}

/** Options of {@link preprocessImage}. */
export interface PreprocessOptions extends DecodingCallOptions {
  /** Width and height of the result in pixels. */
  size: number
  /** Default "bicubic". Both as Pillow computes them. */
  resize?: 'bicubic' | 'bilinear' | undefined
  /** "squash" (default) ignores the aspect ratio, "pad" keeps it. */
  fit?: 'squash' | 'pad' | undefined
}

export const decodingRules: Rules<DecodingOptions> = {
  maxImagePixels: rule.integer(1),
  decodeTimeoutMs: rule.integer(1, 2 ** 31 - 1),
  allowPrivateAddresses: rule.flag
}

export const decodingCallRules: Rules<DecodingCallOptions> = { ...decodingRules, signal: rule.signal }

export const pictureDefaults = { fit: 'squash', resize: 'bicubic' } as const

/** Of loading as well. */
export const pictureRules = {
  resize: rule.oneOf('bicubic', 'bilinear'),
  fit: rule.oneOf('squash', 'pad'),
  ...decodingRules
}

export const preprocessRules: Rules<PreprocessOptions> = {
  size: rule.integer(1, 16384),
  ...pictureRules,
  signal: rule.signal
}
