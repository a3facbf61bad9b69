/** What went wrong with a request, and what to do about it. */
import { PaliGemmaError } from '../base/errors'
import { type HubClient, type Subject, Transient } from './client'
import { similarNames } from './similar'

/** Certificates do not get better by trying again. */
const certificateError = /CERT|SELF_SIGNED|UNABLE_TO_(GET|VERIFY)/
// No such host, a port that no browser asks, another protocol, a rule of this system: the same again in a minute,
// unless it worked a minute ago.
const permanent = new RegExp(
  '^(?:ENOTFOUND|EPROTO|ERR_SSL_.*|ERR_TLS_.*|HPE_.*|ERR_INVALID_URL|UND_ERR_INVALID_ARG|UND_ERR_NOT_SUPPORTED|' +
    'EACCES|EPERM|ERR_ACCESS_DENIED)$'
)
const permanentText = /^(?:bad port|unknown scheme|URL scheme .* not supported|.*includes credentials)/

/** What a failed `fetch` means. */
export function connectionError({ reached }: HubClient, host: string, error: unknown): Error {
  const { cause } = error as { cause?: unknown }
  const inner = (typeof cause === 'object' && cause !== null ? cause : error) as NodeJS.ErrnoException
  const code = String(inner.code ?? '')
  const text = inner.message || code || String(error)
  const failure = (advice: string): PaliGemmaError =>
    new PaliGemmaError('ERR_DOWNLOAD_FAILED', `${host}: ${text}${text.includes(code) ? '' : ` (${code})`}; ${advice}`, {
      cause: error
    })
  if (certificateError.test(code))
    return failure('behind a proxy with its own certificates set NODE_EXTRA_CA_CERTS to them')
  if (!reached.has(host) && (permanent.test(code) || permanentText.test(text)))
    return failure(`check HF_ENDPOINT and the network${proxyHint(process.env)}`)
  return new Transient(`${host}: ${text}${proxyHint(process.env)}`, undefined, { cause: error })
}

type Environment = Record<string, string | undefined>
const proxyVariable = (env: Environment): string | undefined =>
  ['HTTPS_PROXY', 'https_proxy', 'HTTP_PROXY', 'http_proxy'].find((one) => env[one])

/** Node uses these variables only when it is told to. */
export function proxyUsed(env: Environment): boolean {
  const told =
    env['NODE_USE_ENV_PROXY'] === '1' || /--use-env-proxy/.test(`${env['NODE_OPTIONS']} ${process.execArgv.join(' ')}`)
  return proxyVariable(env) !== undefined && told && process.allowedNodeEnvironmentFlags.has('--use-env-proxy')
}

export function proxyHint(env: Environment): string {
  const name = proxyVariable(env)
  return name === undefined || proxyUsed(env)
    ? ''
    : `; ${name} is set, which Node (from 22.21 and 24.5 on) uses with NODE_USE_ENV_PROXY=1 only`
}

/** A refused request, and what the hub says of it in X-Error-Code and X-Error-Message. */
interface Refused {
  client: HubClient
  subject: Subject
  /** Of the hub: the file where one was asked for. */
  what: string
  page: string
  status: number
  reason: string | null
  said: string
  /** Where the answer comes from. */
  server: string
}

/** What an error status means. */
export function refusal(client: HubClient, subject: Subject, response: Response, atHome: boolean): Error {
  response.body?.cancel().catch(() => {})
  const { status, headers } = response
  const { id, file } = subject
  const refused: Refused = {
    client,
    subject,
    what: file === undefined ? id : `${id}/${file}`,
    page: `${client.endpoint}/${id}`,
    status,
    reason: headers.get('x-error-code'),
    said: (headers.get('x-error-message') ?? '').slice(0, 300),
    server: atHome ? client.endpoint : 'the file server'
  }
  const { what, reason, said, server } = refused
  if (status === 404 || reason === 'RepoNotFound' || reason === 'RevisionNotFound') return notFound(refused)
  if (status === 401 || status === 403) {
    // A signed address of a file server expires; the next attempt gets a new one from the hub.
    if (!atHome) return new Transient(`${new URL(response.url || client.endpoint).host} answers ${status}`)
    return denied(refused)
  }
  if (status === 429 || status === 408 || status >= 500) return busy(refused, retryAfter(headers))
  return new PaliGemmaError(
    'ERR_DOWNLOAD_FAILED',
    `${what}: ${server} answers ${status} ${response.statusText}${said && `: ${said}`}`
  )
}

function notFound({ client, subject: { id, revision, file }, page, reason }: Refused): PaliGemmaError {
  if (reason === 'RevisionNotFound')
    return new PaliGemmaError(
      'ERR_MODEL_NOT_FOUND',
      `${id} has no revision ${revision}; ${page}/tree/main lists branches and tags`
    )
  if (file !== undefined || reason === 'EntryNotFound') {
    const missing = file === undefined ? 'files' : `file ${file}`
    return new PaliGemmaError('ERR_MODEL_NOT_FOUND', `${id} has no ${missing} at revision ${revision}`)
  }
  return new PaliGemmaError(
    'ERR_MODEL_NOT_FOUND',
    `${client.endpoint} has no model ${id}${client.token === undefined ? ' that can be seen without a token' : ''}; ` +
      `check the name${meant(id)}, and for a private repository set HF_TOKEN to a token that may read it`
  )
}

const meant = (id: string): string => {
  const similar = similarNames(id)
  return similar.length === 0 ? '' : ` (did you mean ${similar.join(' or ')}?)`
}

function denied({ client, subject, what, page, status, reason, said }: Refused): PaliGemmaError {
  if (/access to this resource is disabled/i.test(said))
    return new PaliGemmaError(
      'ERR_ACCESS_DENIED',
      `${what} has been disabled at ${client.endpoint} (${status}): ${said}`
    )
  const licence = `accept the licence at ${page}`
  const login = `set HF_TOKEN to an access token (${client.endpoint}/settings/tokens, permission to read)`
  if (status === 401 && client.token === undefined && reason !== 'GatedRepo') {
    // The hub does not tell strangers what there is.
    return new PaliGemmaError(
      'ERR_ACCESS_DENIED',
      `${client.endpoint} shows no ${what} without a token (401): check the name${meant(subject.id)}; if it is ` +
        `right, the model is private or gated: log in, that is, ${licence} where it asks for that, then ${login}` +
        (said && `. The hub says: ${said}`)
    )
  }
  const help =
    client.token === undefined
      ? `${licence}, then ${login}`
      : status === 401 && reason !== 'GatedRepo'
        ? `the token of ${client.tokenFrom} is not valid (any more); make a new one at ` +
          `${client.endpoint}/settings/tokens`
        : `${licence} with the account of ${client.tokenFrom}, and let the token read gated repositories`
  return new PaliGemmaError(
    'ERR_ACCESS_DENIED',
    `${what} may not be read (${status}${reason ? ` ${reason}` : ''}): ${help}${said && `. The hub says: ${said}`}`
  )
}

function busy({ client, what, status, server }: Refused, wait: number | undefined): Error {
  const text = `${server} answers ${status}${status === 429 ? ' (too many requests)' : ''}`
  if (wait !== undefined && wait > client.timing.maxRetryAfterMs) {
    return new PaliGemmaError(
      'ERR_DOWNLOAD_FAILED',
      `${what}: ${text} and asks to wait ${Math.ceil(wait / 1000)} s; try again then` +
        (client.token === undefined ? ', or set HF_TOKEN: known users may ask more often' : '')
    )
  }
  return new Transient(text, wait)
}

/**
 * Retry-After in seconds or as a date; else the hub's RateLimit header, whose t is the seconds until its window ends.
 */
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
