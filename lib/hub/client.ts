/** Who asks the hub, how patiently, and what a passing failure is. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>

/** What tests shorten. */
export interface Timing {
  /** An answer, or the next piece of one, takes no longer than this. */
  stallMs: number
  /** The first pause between attempts; each one doubles it, up to `maxPauseMs`. */
  pauseMs: number
  maxPauseMs: number
  /** A server that asks for more patience than this has its wish reported instead. */
  maxRetryAfterMs: number
  /** Attempts in a row that bring nothing. */
  attempts: number
}

export const defaultTiming: Timing = {
  stallMs: 30_000,
  pauseMs: 1000,
  maxPauseMs: 30_000,
  maxRetryAfterMs: 330_000,
  attempts: 6
}

export interface HubClient {
  endpoint: string
  token: string | undefined
  /** A variable, a file, the option: what to change where the token is refused. */
  tokenFrom: string
  fetch: Fetch
  timing: Timing
  signal: AbortSignal | undefined
  /** Told before each pause. */
  onRetry: ((message: string) => void) | undefined
  /** Hosts that have answered: what fails at one of them later may pass. */
  reached: Set<string>
  /** Redirects may lead to addresses inside this network. */
  allowPrivate: boolean
  /** Names are looked up here; not with somebody else's `fetch`. */
  lookUp: boolean
}

/** A failure that another attempt may mend. */
export class Transient extends Error {
  constructor(
    message: string,
    readonly retryAfterMs?: number,
    options?: { cause?: unknown }
  ) {
    super(message, options)
  }
}

/** What a request is about, for messages. */
export interface Subject {
  id: string
  revision: string
  file?: string
}
