/** The one error class of the package and its codes. */
import { isError } from './realms'

/** All codes, in the order of the documentation; those of the engine are in native/base/error.h, too. */
export const errorCodes = [
  'ERR_MODEL_NOT_FOUND',
  'ERR_MODEL_INVALID',
  'ERR_MODEL_UNSUPPORTED',
  'ERR_IMAGE_INVALID',
  'ERR_IMAGE_TOO_LARGE',
  'ERR_PROMPT_TOO_LONG',
  'ERR_INVALID_OPTION',
  'ERR_OUT_OF_MEMORY',
  'ERR_DEVICE_UNAVAILABLE',
  'ERR_DEVICE_LOST',
  'ERR_MODEL_CHANGED',
  'ERR_BUSY',
  'ERR_DEADLINE',
  'ERR_OUTPUT_INCOMPLETE',
  'ERR_OUTPUT_INVALID',
  'ERR_TRAINING_DIVERGED',
  'ERR_DISPOSED',
  'ERR_DEPENDENCY_MISSING',
  'ERR_NATIVE_MISSING',
  'ERR_ACCESS_DENIED',
  'ERR_DOWNLOAD_FAILED',
  'ERR_DISK_FULL',
  'ERR_WRITE_FAILED',
  'ERR_INTERNAL'
] as const

/**
 * Stable error codes, safe to compare against.
 *
 * | code | when |
 * |---|---|
 * | `ERR_MODEL_NOT_FOUND` | a model, adapter, tokenizer or mask decoder file does not exist or cannot be read |
 * | `ERR_MODEL_INVALID` | the file is damaged or not what it should be; the message names the field and the byte |
 * | `ERR_MODEL_UNSUPPORTED` | the file is fine but not a model (or a part of one) that this engine can run |
 * | `ERR_IMAGE_INVALID` | an image cannot be read or decoded |
 * | `ERR_IMAGE_TOO_LARGE` | an image has more pixels or bytes than the limits allow |
 * | `ERR_PROMPT_TOO_LONG` | images, prompt and `maxTokens` do not fit the context |
 * | `ERR_INVALID_OPTION` | an option is unknown or has a wrong type or range |
 * | `ERR_OUT_OF_MEMORY` | the system refused memory, a thread or one more open file; the message names the limit |
 * | `ERR_DEVICE_UNAVAILABLE` | the requested device is not there or not built in |
 * | `ERR_DEVICE_LOST` | the GPU failed or was reset while it was in use; load the model again |
 * | `ERR_MODEL_CHANGED` | a model file was cut or written to while it was in use; load it again when it is whole |
 * | `ERR_BUSY` | `maxQueue` requests are under way; try again later |
 * | `ERR_DEADLINE` | the request's `deadlineMs` passed before it ended |
 * | `ERR_OUTPUT_INCOMPLETE` | `maxTokens` or a stop string cut an object or a choice; `text` is what there is |
 * | `ERR_OUTPUT_INVALID` | the schema's own checks refuse the whole object in `text`; `cause`: their issues |
 * | `ERR_TRAINING_DIVERGED` | numbers stopped being finite while training; lower `learningRate` or set `clip` |
 * | `ERR_DISPOSED` | the model was disposed before or during the call |
 * | `ERR_DEPENDENCY_MISSING` | sharp, for encoded pictures, is not installed, or not for this machine |
 * | `ERR_NATIVE_MISSING` | no engine binary for this platform |
 * | `ERR_ACCESS_DENIED` | the hub refuses (accept the licence, set HF_TOKEN), or the system refuses to write a file |
 * | `ERR_DOWNLOAD_FAILED` | a download failed for good: no connection, stalled, wrong size or checksum |
 * | `ERR_DISK_FULL` | there is no room for a download, a converted model or any other file, or a quota is reached |
 * | `ERR_WRITE_FAILED` | a file could not be written for another reason, such as a failing disk |
 * | `ERR_INTERNAL` | a mistake of ours; please report it |
 */
export type ErrorCode = (typeof errorCodes)[number]

/**
 * What every function of this package throws or rejects with, except an abort, which rejects with the signal's own
 * reason. `message` says what is wrong, where, and what to do; `cause` keeps the underlying error if there is one.
 */
export class PaliGemmaError extends Error {
  /** Stable and comparable; see {@link ErrorCode}. */
  readonly code: ErrorCode
  /** What the model wrote; with ERR_OUTPUT_INCOMPLETE and ERR_OUTPUT_INVALID. */
  declare readonly text?: string // not an own property of other errors, which would show it

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown; text?: string }) {
    super(message, options)
    this.code = code
    if (options?.text !== undefined) this.text = options.text
  }

  static {
    // On the prototype, as the built-in errors have it: not an own property, so it does not show when inspected.
    Object.defineProperty(PaliGemmaError.prototype, 'name', {
      value: 'PaliGemmaError',
      configurable: true,
      writable: true
    })
  }
}

/** Output that ended before it was what was asked for. */
export function incomplete(wanted: string, text: string): PaliGemmaError {
  const shown = text.length > 80 ? `${text.slice(0, 77)}...` : text
  return new PaliGemmaError(
    'ERR_OUTPUT_INCOMPLETE',
    `The output ended before it was ${wanted}: ${JSON.stringify(shown)}. Raise maxTokens, leave out stop strings, or ` +
      'limit the lengths of strings and arrays',
    { text }
  )
}

/** The spelling the engine uses for a cancelled job. Users never see it: they get the signal's reason. */
export const nativeAborted = 'ERR_ABORTED'

const known: ReadonlySet<string> = new Set<string>(errorCodes)

/** What the engine threw or reported (an Error with a `code`, or `{code, message}`), as a {@link PaliGemmaError}. */
export function fromNative(error: unknown): PaliGemmaError {
  if (error instanceof PaliGemmaError) return error
  const { code, message } = (typeof error === 'object' && error !== null ? error : {}) as {
    code?: unknown
    message?: unknown
  }
  const text = typeof message === 'string' && message !== '' ? message : String(error)
  const cause = isError(error) ? { cause: error } : undefined
  if (typeof code === 'string' && known.has(code)) return new PaliGemmaError(code as ErrorCode, text, cause)
  return new PaliGemmaError('ERR_INTERNAL', `The native engine failed: ${text}`, cause)
}

/** Rejections of a native promise, as {@link PaliGemmaError}. */
export async function nativeCall<T>(call: () => Promise<T> | T): Promise<T> {
  try {
    return await call()
  } catch (error) {
    throw fromNative(error)
  }
}

/** What a native call throws, as {@link PaliGemmaError}. */
export function nativeSync<T>(call: () => T): T {
  try {
    return call()
  } catch (error) {
    throw fromNative(error)
  }
}
