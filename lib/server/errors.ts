/** What clients are told when something fails: OpenAI's shape, with our codes. */
import { PaliGemmaError, type ErrorCode } from '../base/errors'

/** An error that has a place in HTTP. */
export class ApiError extends PaliGemmaError {
  readonly status: number
  /** The field of the request that is wrong, as `messages[0].content`. */
  readonly param: string | null
  readonly headers: Record<string, string>

  constructor(
    status: number,
    code: ErrorCode,
    message: string,
    {
      param = null,
      headers = {},
      cause
    }: { param?: string | null; headers?: Record<string, string>; cause?: unknown } = {}
  ) {
    super(code, message, cause === undefined ? undefined : { cause })
    this.status = status
    this.param = param
    this.headers = headers
  }
}

/** Of nginx: the client has gone, nobody reads this answer. */
export const clientGone = 499

const statuses: Partial<Record<ErrorCode, number>> = {
  ERR_INVALID_OPTION: 400,
  ERR_IMAGE_INVALID: 400,
  ERR_PROMPT_TOO_LONG: 400,
  ERR_MODEL_UNSUPPORTED: 400,
  ERR_IMAGE_TOO_LARGE: 413,
  ERR_OUTPUT_INCOMPLETE: 422,
  ERR_OUTPUT_INVALID: 422,
  ERR_BUSY: 429,
  ERR_MODEL_CHANGED: 503,
  ERR_OUT_OF_MEMORY: 503,
  ERR_DISPOSED: 503,
  ERR_DEVICE_UNAVAILABLE: 503,
  ERR_DEVICE_LOST: 503,
  ERR_DEADLINE: 504
}

const types: Record<number, string> = {
  401: 'authentication_error',
  403: 'permission_error',
  429: 'rate_limit_error'
}

export interface ErrorBody {
  error: { message: string; type: string; param: string | null; code: string }
}

export interface Failure {
  status: number
  code: string
  body: ErrorBody
  headers: Record<string, string>
}

/**
 * What became of a request, for its answer and for the log. Mistakes of ours and of the disk say no more than their
 * code.
 */
export function failureOf(error: unknown): Failure {
  const code = error instanceof PaliGemmaError ? error.code : 'ERR_INTERNAL'
  const api = error instanceof ApiError ? error : undefined
  const status = api?.status ?? statuses[code] ?? 500
  const told = status < 500 || api !== undefined || code === 'ERR_DEADLINE'
  const message = told
    ? (error as Error).message
    : `The request failed with ${code}; the server's log has more under this request's x-request-id`
  const type = types[status] ?? (status < 500 ? 'invalid_request_error' : 'server_error')
  return {
    status,
    code,
    body: { error: { message, type, param: api?.param ?? null, code } },
    headers: api?.headers ?? {}
  }
}
