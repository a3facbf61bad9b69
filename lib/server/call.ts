/** One request on its way: what it may use, what ends it, what is said about it afterwards. */
import type * as z from './schemas/vendored'
import type { GenerateResult } from '../api/options/results'
import { isError } from '../base/realms'
import type { Admission } from './admission'
import { failureOf, clientGone } from './errors'
import type { Logger } from './log'
import type { Metrics } from './metrics'
import type { Models, OpenModel } from './models'
import { openPictures, type PictureRules } from './pictures'
import type { Picture } from './schemas/common'

/** What all requests of a server share. */
export interface Services {
  models: Models
  metrics: Metrics
  admission: Admission
  logger: Logger
  logContent: boolean
  pictures: PictureRules
  maxBodyBytes: number
  deadlineMs: number
}

/** Fields of the log's line. */
export interface CallRecord {
  id: string
  method: string
  path: string
  model?: string
  usage?: GenerateResult['usage']
  prompt?: string
  text?: string
}

export class Call<Body = unknown> {
  readonly record: CallRecord
  body!: Body
  /** Ends when the client leaves, the time is over or the server stops. */
  readonly signal: AbortSignal
  private readonly control = new AbortController()
  private readonly start = performance.now()
  private readonly cleanups: (() => void)[] = []
  private over = false
  /** The answer is a stream that ends the call itself. */
  streaming = false

  constructor(
    readonly services: Services,
    readonly request: Request,
    readonly params: Record<string, string>,
    record: { id: string; path: string }
  ) {
    this.signal = this.control.signal
    this.record = { ...record, method: request.method }
  }

  abort(reason: unknown): void {
    this.control.abort(reason)
  }

  /** Run when the call ends, whatever its end. */
  onEnd(cleanup: () => void): void {
    if (this.over) cleanup()
    else this.cleanups.push(cleanup)
  }

  async openModel(given: string | null | undefined): Promise<OpenModel> {
    this.record.model = this.services.models.nameOf(given)
    const opened = await this.services.models.open(given, this.signal)
    this.onEnd(opened.release)
    return opened
  }

  async openPictures(pictures: readonly Picture[]): Promise<Uint8Array[]> {
    return await openPictures(pictures, this.services.pictures, this.signal)
  }

  /** What was generated, for the log and the metrics. */
  generated(model: string, prompt: string, result: Pick<GenerateResult, 'usage' | 'timings' | 'text'>): void {
    const { metrics, logContent } = this.services
    metrics.generated(model, result)
    const before = this.record.usage
    const add = (kind: keyof GenerateResult['usage']): number => result.usage[kind] + (before?.[kind] ?? 0)
    this.record.usage = {
      imageTokens: add('imageTokens'),
      promptTokens: add('promptTokens'),
      completionTokens: add('completionTokens')
    }
    if (logContent) Object.assign(this.record, { prompt, text: result.text })
  }

  /** Once; `error`: what ended it. */
  end(status: number, error?: unknown): void {
    if (this.over) return
    this.over = true
    for (const cleanup of this.cleanups.splice(0)) cleanup()
    const { metrics, logger } = this.services
    const ms = Math.round(performance.now() - this.start)
    const code = error === undefined || status === clientGone ? undefined : failureOf(error).code
    metrics.ended(this.record.path, status, ms, code)
    const line = { ...this.record, status, ms, ...(code !== undefined && { code }) }
    if (status >= 500 && isError(error)) logger.error({ ...line, err: error.message }, 'request failed')
    else logger.info(line, status === clientGone ? 'client left' : 'request')
  }
}

/** An endpoint: the app and the OpenAPI document are made of these. */
export interface Route<Body extends z.ZodType = z.ZodType> {
  method: 'get' | 'post'
  path: string
  /** Of the document. */
  summary: string
  tag: string
  body?: Body
  multipart?: boolean
  /** Also answers as server-sent events, with `stream: true`. */
  streams?: boolean
  response?: z.ZodType
  params?: Record<string, string>
  /** No key is needed, and no place in the queue. */
  open?: boolean
  handle: (call: Call<z.output<Body>>) => Promise<Response>
}

/** A route with the type of its body checked. */
export const route = <Body extends z.ZodType>(given: Route<Body>): Route => given as unknown as Route

export const json = (value: unknown, status = 200): Response =>
  new Response(JSON.stringify(value), { status, headers: { 'content-type': 'application/json' } })

/** A route's path as documents and metrics write it: `/v1/models/{id}`. */
export const plainPath = (path: string): string => path.replace(/:(\w+)(?:\{[^}]*\})?/g, '{$1}')
