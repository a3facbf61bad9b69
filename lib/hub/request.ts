/** Requests to the hub: who gets the token, what is tried again, and what its refusals mean. */
import { PaliGemmaError } from '../base/errors'
import { anySignal, untilAborted } from '../base/signals'

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
  fetch: Fetch
  timing: Timing
  signal: AbortSignal | undefined
  /** Told before each pause. */
  onRetry: ((message: string) => void) | undefined
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

const maxRedirects = 10

/** What a request is about, for messages. */
export interface Subject {
  id: string
  revision: string
  file?: string
}

/** An answer whose body is still to be read; `release` it at the end. */
export interface OpenResponse {
  response: Response
  /** Headers of all answers on the way, the hub's own first: a redirect carries what the hub knows of the file. */
  hops: Headers[]
  /** The body, piece by piece; throws the user's reason, or {@link Transient} for a stall or a broken connection. */
  body: () => AsyncGenerator<Uint8Array, void, void>
  release: () => void
}

/**
 * One attempt. Redirects are followed here, so that the token goes to the hub's origin only and never from https to
 * http. Throws {@link Transient} for what may pass.
 */
export async function request(
  client: HubClient,
  url: string,
  subject: Subject,
  headers: Record<string, string> = {}
): Promise<OpenResponse> {
  const stalled = new AbortController()
  const both = anySignal([client.signal, stalled.signal])
  let timer: NodeJS.Timeout | undefined
  const touch = (): void => {
    clearTimeout(timer)
    timer = setTimeout(() => stalled.abort(), client.timing.stallMs)
  }
  const release = (): void => {
    clearTimeout(timer)
    both.release()
    body?.cancel().catch(() => {})
  }
  // Node 20's fetch was seen to leave the read of a body pending for ever after its signal aborted, so every wait here
  // is raced against the signal and bodies are cancelled by hand.
  const signal = both.signal!
  let body: ReadableStreamDefaultReader<Uint8Array> | undefined
  async function* readBody(response: Response): AsyncGenerator<Uint8Array, void, void> {
    body = response.body?.getReader()
    while (body) {
      touch()
      const { done, value } = await untilAborted(body.read(), signal).catch((error: unknown) => {
        throw explain(error)
      })
      if (done) return
      clearTimeout(timer) // the disk may take its time
      yield value
    }
  }
  let host = new URL(url).host
  const explain = (error: unknown): unknown => {
    if (client.signal?.aborted) return client.signal.reason
    if (stalled.signal.aborted) return new Transient(`${host} sent nothing for ${client.timing.stallMs / 1000} s`)
    if (error instanceof Transient || error instanceof PaliGemmaError) return error
    return connectionError(host, error)
  }
  try {
    client.signal?.throwIfAborted()
    const hops: Headers[] = []
    const home = new URL(client.endpoint).origin
    for (let target = new URL(url); ; ) {
      touch()
      host = target.host
      const atHome = target.origin === home
      const response = await untilAborted(
        client.fetch(target.href, {
          redirect: 'manual',
          headers: {
            'accept-encoding': 'identity',
            'user-agent': 'node-paligemma',
            ...headers,
            ...(atHome && client.token !== undefined && { authorization: `Bearer ${client.token}` })
          },
          signal
        }),
        signal
      )
      hops.push(response.headers)
      if (response.status >= 300 && response.status < 400 && response.headers.has('location')) {
        response.body?.cancel().catch(() => {})
        if (hops.length > maxRedirects)
          throw new PaliGemmaError('ERR_DOWNLOAD_FAILED', `${url}: more than ${maxRedirects} redirects`)
        const next = new URL(response.headers.get('location')!, target)
        if (next.protocol !== 'https:' && (next.protocol !== 'http:' || target.protocol === 'https:')) {
          throw new PaliGemmaError(
            'ERR_DOWNLOAD_FAILED',
            `${target.origin} redirects to ${next.protocol}//${next.host}, which is not safe`
          )
        }
        target = next
        continue
      }
      if (!response.ok && response.status !== 416 && response.status !== 412)
        throw refusal(client, subject, response, atHome)
      return { response, hops, body: () => readBody(response), release }
    }
  } catch (error) {
    const reason = explain(error)
    release()
    throw reason
  }
}

/** Certificates do not get better by trying again. */
const certificateError = /CERT|SELF_SIGNED|UNABLE_TO_(GET|VERIFY)/

function connectionError(host: string, error: unknown): Error {
  const { cause } = error as { cause?: unknown }
  const inner = cause instanceof Error ? cause : (error as Error)
  const code = String((inner as NodeJS.ErrnoException).code ?? '')
  const text = inner.message || code || String(error)
  if (certificateError.test(code)) {
    return new PaliGemmaError(
      'ERR_DOWNLOAD_FAILED',
      `${host}: ${text} (${code}); behind a proxy with its own certificates set NODE_EXTRA_CA_CERTS`,
      { cause: error }
    )
  }
  return new Transient(`${host}: ${text}`, undefined, { cause: error })
}

/** What an error status means. The hub puts its reason into X-Error-Code and X-Error-Message. */
function refusal(client: HubClient, { id, revision, file }: Subject, response: Response, atHome: boolean): Error {
  response.body?.cancel().catch(() => {})
  const { status, headers } = response
  const reason = headers.get('x-error-code')
  const said = (headers.get('x-error-message') ?? '').slice(0, 300)
  const what = file === undefined ? id : `${id}/${file}`
  const page = `${client.endpoint}/${id}`
  if (status === 404 || reason === 'RepoNotFound' || reason === 'RevisionNotFound') {
    if (reason === 'RevisionNotFound')
      return new PaliGemmaError(
        'ERR_MODEL_NOT_FOUND',
        `${id} has no revision ${revision}; ${page}/tree/main lists branches and tags`
      )
    if (reason === 'EntryNotFound' || file !== undefined)
      return new PaliGemmaError('ERR_MODEL_NOT_FOUND', `${id} has no file ${file ?? ''} at revision ${revision}`)
    return new PaliGemmaError(
      'ERR_MODEL_NOT_FOUND',
      `${client.endpoint} has no model ${id}${client.token === undefined ? ' that can be seen without a token' : ''}; ` +
        'check the name, and for a private repository set HF_TOKEN to a token that may read it'
    )
  }
  if (status === 401 || status === 403) {
    // A signed address of a file server expires; the next attempt gets a new one from the hub.
    if (!atHome) return new Transient(`${new URL(response.url || client.endpoint).host} answers ${status}`)
    const licence = `accept the licence at ${page}`
    const help =
      client.token === undefined
        ? `${licence}, then set HF_TOKEN to an access token (${client.endpoint}/settings/tokens, permission to read)`
        : status === 401 && reason !== 'GatedRepo'
          ? `the token of HF_TOKEN is not valid (any more); make a new one at ${client.endpoint}/settings/tokens`
          : `${licence} with the account of HF_TOKEN, and let the token read gated repositories`
    return new PaliGemmaError(
      'ERR_ACCESS_DENIED',
      `${what} may not be read (${status}${reason ? ` ${reason}` : ''}): ${help}${said && `. The hub says: ${said}`}`
    )
  }
  if (status === 429 || status === 408 || status >= 500) {
    const wait = retryAfter(headers)
    const text = `${atHome ? client.endpoint : 'the file server'} answers ${status}${status === 429 ? ' (too many requests)' : ''}`
    if (wait !== undefined && wait > client.timing.maxRetryAfterMs) {
      return new PaliGemmaError(
        'ERR_DOWNLOAD_FAILED',
        `${what}: ${text} and asks to wait ${Math.ceil(wait / 1000)} s; try again then` +
          (client.token === undefined ? ', or set HF_TOKEN: known users may ask more often' : '')
      )
    }
    return new Transient(text, wait)
  }
  return new PaliGemmaError(
    'ERR_DOWNLOAD_FAILED',
    `${what}: ${atHome ? client.endpoint : 'the file server'} answers ${status} ${response.statusText}${said && `: ${said}`}`
  )
}

/** Retry-After in seconds or as a date; else the hub's RateLimit header, whose t is the seconds until its window ends. */
export function retryAfter(headers: Headers, now = Date.now()): number | undefined {
  const value = headers.get('retry-after')?.trim()
  if (value) {
    if (/^\d+(\.\d+)?$/.test(value)) return Number(value) * 1000
    const date = Date.parse(value)
    if (!Number.isNaN(date)) return Math.max(0, date - now)
  }
  const window = /(?:^|;)\s*t=(\d+)/.exec(headers.get('ratelimit') ?? '')
  return window ? Number(window[1]) * 1000 : undefined
}

/**
 * Runs `attempt` until it succeeds, fails for good, or failed `timing.attempts` times in a row. `progress` counts
 * what earlier attempts brought: an attempt that moved it starts the count anew.
 */
export async function withRetries<T>(
  client: HubClient,
  what: string,
  attempt: () => Promise<T>,
  progress: () => number = () => 0
): Promise<T> {
  const { timing, signal } = client
  // Something worth having per attempt, else a server that sends a byte each time would hold us for ever.
  const worth = 1 << 16
  let before = progress()
  for (let failures = 1; ; failures++) {
    try {
      return await attempt()
    } catch (error) {
      signal?.throwIfAborted()
      if (!(error instanceof Transient)) throw error
      if (progress() - before >= worth) failures = 1
      before = progress()
      if (failures >= timing.attempts) {
        throw new PaliGemmaError(
          'ERR_DOWNLOAD_FAILED',
          `${what}: ${error.message}; gave up after ${failures} attempts. ` +
            'What was downloaded is kept: the same command goes on from there',
          { cause: error }
        )
      }
      const pause = Math.min(timing.maxPauseMs, timing.pauseMs * 2 ** (failures - 1))
      // Spread out, so that many clients do not come back at the same moment.
      const wait = Math.max(error.retryAfterMs ?? 0, pause * (0.75 + Math.random() / 2))
      client.onRetry?.(
        `${what}: ${error.message}; trying again in ${wait < 10_000 ? (wait / 1000).toFixed(1) : Math.round(wait / 1000)} s`
      )
      await sleep(wait, signal)
    }
  }
}

export async function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted()
  await new Promise<void>((resolve, reject) => {
    const onAbort = (): void => {
      clearTimeout(timer)
      reject(signal!.reason)
    }
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', onAbort)
      resolve()
    }, ms)
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}

/** Larger answers of the API are refused. */
const maxJsonBytes = 32 * 1024 * 1024

/** A JSON answer of the hub's API, with retries. */
export async function requestJson(
  client: HubClient,
  url: string,
  subject: Subject
): Promise<{ json: unknown; headers: Headers }> {
  return await withRetries(client, subject.id, async () => {
    const { response, body, release } = await request(client, url, subject, { accept: 'application/json' })
    try {
      const parts: Uint8Array[] = []
      let bytes = 0
      for await (const part of body()) {
        bytes += part.length
        if (bytes > maxJsonBytes)
          throw new PaliGemmaError('ERR_DOWNLOAD_FAILED', `${url}: the answer is larger than ${maxJsonBytes} bytes`)
        parts.push(part)
      }
      try {
        return { json: JSON.parse(Buffer.concat(parts).toString('utf8')) as unknown, headers: response.headers }
      } catch (cause) {
        throw new PaliGemmaError(
          'ERR_DOWNLOAD_FAILED',
          `${url}: the answer is not JSON; is HF_ENDPOINT a Hugging Face hub?`,
          { cause }
        )
      }
    } finally {
      release()
    }
  })
}
