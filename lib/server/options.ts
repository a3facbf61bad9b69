/** The options of a server, with their defaults and rules. */
import type { PaliGemma } from '../api/model'
import type { LoadOptions } from '../api/options/options'
import type { AdapterOption } from '../convert/adapters/option'
import { isRecord } from '../base/realms'
import { rule, type Rule, type Rules } from '../base/validate'
import type { LineWriter, Logger } from './log'

/** The adapters of a model as a model of their own: same weights, other answers. */
export interface AdaptedModel {
  /** Name of a model beside it. */
  base: string
  /** What its requests use, instead of what the base was given. */
  adapters: (string | URL | AdapterOption)[]
}

/**
 * What a name stands for: what `loadModel` takes, a model that is loaded already, or another one's weights with
 * adapters.
 */
export type ServedModel = string | URL | LoadOptions | PaliGemma | AdaptedModel

/** Options of {@link createServer}. */
export interface ServerOptions {
  /** By the name that requests say in `model`. The first one answers requests that say none. */
  models: Record<string, ServedModel>
  /** true: models are loaded when they are first asked for. Default false: at once, and `/ready` waits for them. */
  lazy?: boolean | undefined
  /**
   * Milliseconds without a request after which a model is unloaded, to be loaded again when asked for. Default: never.
   */
  idleUnloadMs?: number | undefined
  /** With some, requests need one as `Authorization: Bearer KEY`. Default: none. */
  apiKeys?: string[] | undefined
  /** Origins of other sites whose pages may ask, or "*". Default: none. */
  cors?: '*' | string[] | undefined
  /** Path in front of all others, where the server is mounted in another: "/api/paligemma". Default "". */
  basePath?: string | undefined
  /** false: no page at "/". Default true. */
  page?: boolean | undefined
  /** Requests under way or waiting at once; one more is answered 429 with Retry-After. Default 100. */
  maxQueue?: number | undefined
  /**
   * Milliseconds from the first byte of a request to the last of its answer; then it ends with ERR_DEADLINE. Default
   * 300,000.
   */
  deadlineMs?: number | undefined
  /** Largest body of a request in bytes, 413 beyond. Default 32 MiB. */
  maxBodyBytes?: number | undefined
  /** Pictures of one request, 413 beyond. Default 16. */
  maxImages?: number | undefined
  /**
   * Whether requests may name pictures by http(s) URL. Default false. Never from addresses of this machine and its
   * networks (nor of clouds' metadata services), after names are resolved and on every redirect, whatever the
   * environment says. Those of a request together have at most `maxBodyBytes`.
   */
  remoteImages?: boolean | undefined
  /**
   * Where a line of each request goes: an object with `info` and `error`, such as pino's, or a function that takes
   * lines of JSON; false: nowhere. Default: JSON on standard error.
   */
  logger?: Logger | LineWriter | false | undefined
  /** Prompts and answers in the log too. Default false; pictures never are. */
  logContent?: boolean | undefined
}

const originList = rule.listOf(
  'origins such as "https://example.com"',
  (v) => typeof v === 'string' && /^[a-z][\w+.-]*:\/\/[^/]+$/.test(v)
)
const originsRule: Rule = {
  expected: '"*" or a list of origins such as "https://example.com"',
  accepts: (v) => v === '*' || originList.accepts(v),
  take: (v, folder) => (v === '*' ? v : originList.take!(v, folder))
}

const loggerRule: Rule = {
  expected: 'object with info and error, function, or false',
  accepts: (v) =>
    v === false ||
    rule.function.accepts(v) ||
    (rule.function.accepts((v as Logger).info) && rule.function.accepts((v as Logger).error))
}

export const serverRules: Rules<ServerOptions> = {
  models: {
    expected: 'object of at least one model by name',
    accepts: (v) => isRecord(v) && Object.keys(v).length > 0
  },
  lazy: rule.flag,
  idleUnloadMs: rule.integer(1, 2 ** 31 - 1),
  apiKeys: rule.listOf('non-empty strings', (v) => typeof v === 'string' && v !== ''),
  cors: originsRule,
  basePath: {
    expected: 'path such as "/api"',
    accepts: (v) => typeof v === 'string' && /^(?:\/[\w.~-]+)*$/.test(v)
  },
  page: rule.flag,
  maxQueue: rule.integer(1),
  deadlineMs: rule.integer(1, 2 ** 31 - 1),
  maxBodyBytes: rule.integer(1024, 2 ** 30),
  maxImages: rule.integer(1, 1024),
  remoteImages: rule.flag,
  logger: loggerRule,
  logContent: rule.flag
}

export const serverDefaults = {
  maxQueue: 100,
  deadlineMs: 300_000,
  maxBodyBytes: 32 * 2 ** 20,
  maxImages: 16
} as const

/** Options of `server.listen`. */
export interface ListenOptions {
  /** Default 8080; 0: any that is free. */
  port?: number | undefined
  /** Default "127.0.0.1": this machine alone. "0.0.0.0" or "::": all that reach it; give `apiKeys` then. */
  host?: string | undefined
  /**
   * Names under which this server is asked, for the check of the Host header where it listens on loopback without keys.
   */
  allowedHosts?: string[] | undefined
  /** Connections at once; more are closed. Default 1024. */
  maxConnections?: number | undefined
  /** Milliseconds in which a request must have come whole. Default 60,000. */
  requestTimeoutMs?: number | undefined
  /** Milliseconds after which a client that takes nothing of its answer is cut off. Default 30,000. */
  stalledTimeoutMs?: number | undefined
  /** Aborting while it begins to listen rejects with the signal's reason; afterwards it changes nothing. */
  signal?: AbortSignal | undefined
}

export const listenRules: Rules<ListenOptions> = {
  port: rule.integer(0, 65535),
  host: { expected: 'host name or address', accepts: (v) => typeof v === 'string' && v !== '' },
  allowedHosts: rule.listOf('host names', (v) => typeof v === 'string' && v !== ''),
  maxConnections: rule.integer(1),
  requestTimeoutMs: rule.integer(1, 2 ** 31 - 1),
  stalledTimeoutMs: rule.integer(1, 2 ** 31 - 1),
  signal: rule.signal
}

/** Options of `server.close`. */
export interface CloseOptions {
  /** Milliseconds that running requests get to end by themselves; then they are cut. Default 30,000. */
  timeoutMs?: number | undefined
}

export const closeRules: Rules<CloseOptions> = { timeoutMs: rule.integer(0, 2 ** 31 - 1) }
