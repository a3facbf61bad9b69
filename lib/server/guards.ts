/** Who may ask: keys, and pages of other sites. */
import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { ApiError } from './errors'

const digest = (salt: Buffer, text: string): Buffer => createHash('sha256').update(salt).update(text).digest()

/** Checks `Authorization: Bearer KEY` in a time that says nothing about the keys: digests are compared, all of them. */
export class Keys {
  private readonly salt = randomBytes(16)
  private readonly digests: Buffer[]

  constructor(keys: readonly string[]) {
    this.digests = keys.map((key) => digest(this.salt, key))
  }

  get open(): boolean {
    return this.digests.length === 0
  }

  /** @throws ApiError 401 */
  check(headers: Headers): void {
    if (this.open) return
    const given = /^Bearer +(.+)$/i.exec(headers.get('authorization') ?? '')?.[1]?.trim()
    const found = digest(this.salt, given ?? '')
    let known = false
    for (const own of this.digests) known = timingSafeEqual(own, found) || known
    if (known && given !== undefined) return
    const what = given === undefined ? 'This server needs an API key' : 'The API key is not known'
    throw new ApiError(401, 'ERR_ACCESS_DENIED', `${what}; send it as "Authorization: Bearer KEY"`, {
      headers: { 'www-authenticate': 'Bearer' }
    })
  }
}

/**
 * Pages of other sites could make a browser on this machine ask a server on loopback. Browsers say where a request
 * comes
 * from; other clients say nothing.
 * @throws ApiError 403
 */
export function checkOrigin(request: Request, allowed: '*' | readonly string[] | undefined): void {
  const { headers } = request
  const origin = headers.get('origin')
  if (allowed === '*' || (origin !== null && allowed?.includes(origin))) return
  const site = headers.get('sec-fetch-site')
  const foreign = site === null ? origin !== null && !sameHost(origin, headers.get('host')) : site === 'cross-site'
  if (!foreign) return
  throw new ApiError(
    403,
    'ERR_ACCESS_DENIED',
    'Pages of other sites may not ask this server; its option cors allows them'
  )
}

function sameHost(origin: string, host: string | null): boolean {
  try {
    return host === null || new URL(origin).host === host
  } catch {
    return false
  }
}

const isLoopback = (host: string): boolean => /^(?:localhost|127(?:\.\d+){3}|\[?::1\]?)$/i.test(host)

/**
 * A site's name may be made to lead to this machine (DNS rebinding): then the browser takes its page for ours. Where
 * only
 * this machine may ask and no key is needed, the name that is asked for must be this machine's.
 */
export function hostCheck(
  listeningOn: string,
  keys: Keys,
  names: readonly string[] = []
): ((host: string | undefined) => boolean) | undefined {
  if (!isLoopback(listeningOn) || !keys.open) return undefined
  return (host) => {
    const name = (host ?? '').replace(/:\d+$/, '')
    return host === undefined || isLoopback(name) || names.some((own) => own.toLowerCase() === name.toLowerCase())
  }
}
