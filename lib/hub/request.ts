/** Requests to the hub: who gets the token, where redirects may lead, and how long an answer may take. */
import { privateAddress } from '../base/addresses'
import { PaliGemmaError } from '../base/errors'
import { Pieces } from '../base/pieces'
import { anySignal, untilAborted } from '../base/signals'
import { parseLongJson } from '../formats/long-json'
import { type HubClient, type Subject, Transient } from './client'
import { connectionError, refusal } from './failures'
import { withRetries } from './retries'

const maxRedirects = 10
// A server that sends a byte now and then would hold us for ever: so much must come in a stall time, 2 KB a second.
const leastBytes = 1 << 16

/** An answer whose body is still to be read; `release` it at the end. */
export interface OpenResponse {
  response: Response
  /** Headers of all answers on the way, the hub's own first: a redirect carries what the hub knows of the file. */
  hops: Headers[]
  /** The body, piece by piece; throws the user's reason, or {@link Transient} for a stall or a broken connection. */
  body: () => AsyncGenerator<Uint8Array, void, void>
  release: () => void
}

/** One attempt with its clock: every wait ends when the user aborts, or when nothing comes for a stall time. */
class Exchange {
  private readonly stalled = new AbortController()
  private readonly both: ReturnType<typeof anySignal>
  private readonly signal: AbortSignal
  private timer: NodeJS.Timeout | undefined
  private response: Response | undefined
  private reader: ReadableStreamDefaultReader<Uint8Array> | undefined
  /** That is asked now. */
  private host = ''

  constructor(private readonly client: HubClient) {
    this.both = anySignal([client.signal, this.stalled.signal])
    this.signal = this.both.signal!
  }

  private touch(): void {
    clearTimeout(this.timer)
    this.timer = setTimeout(() => this.stalled.abort(), this.client.timing.stallMs)
  }

  release(): void {
    clearTimeout(this.timer)
    this.both.release()
    // a body that nobody reads would hold its connection, and the process, for as long as the server likes
    ;(this.reader ?? this.response?.body)?.cancel().catch(() => {})
  }

  explain(error: unknown): unknown {
    const { client, host } = this
    if (client.signal?.aborted) return client.signal.reason
    if (this.stalled.signal.aborted) return new Transient(`${host} sent nothing for ${client.timing.stallMs / 1000} s`)
    if (error instanceof Transient || error instanceof PaliGemmaError) return error
    return connectionError(client, host, error)
  }

  /**
   * Node 20's fetch was seen to leave the read of a body pending for ever after its signal aborted, so every wait here
   * is raced against the signal and bodies are cancelled by hand.
   */
  async wait<T>(promise: Promise<T>): Promise<T> {
    return await untilAborted(promise, this.signal)
  }

  async ask(target: URL, headers: Record<string, string>): Promise<Response> {
    this.touch()
    this.host = target.host
    const response = await this.wait(
      this.client.fetch(target.href, {
        redirect: 'manual',
        headers: { 'accept-encoding': 'identity', 'user-agent': 'node-paligemma', ...headers },
        signal: this.signal
      })
    )
    this.response = response
    this.client.reached.add(target.host)
    return response
  }

  async *read(response: Response): AsyncGenerator<Uint8Array, void, void> {
    const { stallMs } = this.client.timing
    this.reader = response.body?.getReader()
    let [waited, bytes] = [0, 0]
    while (this.reader) {
      const asked = performance.now()
      this.touch()
      const { done, value } = await this.wait(this.reader.read()).catch((error: unknown) => {
        throw this.explain(error)
      })
      if (done) return
      clearTimeout(this.timer) // the disk may take its time
      waited += performance.now() - asked
      bytes += value.length
      if (bytes >= leastBytes) [waited, bytes] = [0, 0]
      else if (waited > stallMs)
        throw new Transient(`${this.host} sent only ${bytes} bytes in ${Number((waited / 1000).toPrecision(2))} s`)
      yield value
    }
  }
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
  const exchange = new Exchange(client)
  try {
    client.signal?.throwIfAborted()
    const hops: Headers[] = []
    const home = new URL(client.endpoint).origin
    for (let target = new URL(url); ; ) {
      const atHome = target.origin === home
      const response = await exchange.ask(target, {
        ...headers,
        ...(atHome && client.token !== undefined && { authorization: `Bearer ${client.token}` })
      })
      hops.push(response.headers)
      const location = response.headers.get('location')
      if (response.status >= 300 && response.status < 400 && location !== null) {
        response.body?.cancel().catch(() => {})
        if (hops.length > maxRedirects)
          throw new PaliGemmaError('ERR_DOWNLOAD_FAILED', `${url}: more than ${maxRedirects} redirects`)
        target = await exchange.wait(nextTarget(client, target, location))
        continue
      }
      if (!response.ok && response.status !== 416 && response.status !== 412)
        throw refusal(client, subject, response, atHome)
      return { response, hops, body: () => exchange.read(response), release: () => exchange.release() }
    }
  } catch (error) {
    const reason = exchange.explain(error)
    exchange.release()
    throw reason
  }
}

/** Where a redirect may lead: not from https to http, not with a password, not into this network from outside of it. */
async function nextTarget(client: HubClient, from: URL, location: string): Promise<URL> {
  const unsafe = (where: string, why: string) =>
    new PaliGemmaError('ERR_DOWNLOAD_FAILED', `${from.origin} redirects to ${where}, which is not safe${why}`)
  if (!URL.canParse(location, from.href)) throw unsafe(JSON.stringify(location.slice(0, 200)), ': no address')
  const next = new URL(location, from)
  const secure = next.protocol === 'https:' || (next.protocol === 'http:' && from.protocol === 'http:')
  if (!secure || next.username || next.password) throw unsafe(`${next.protocol}//${next.host}`, '')
  const home = new URL(client.endpoint)
  if (next.origin === home.origin || next.origin === from.origin || client.allowPrivate) return next
  const found = await privateAddress(next, client.lookUp)
  if (found !== undefined && (await privateAddress(home, client.lookUp)) === undefined) {
    throw unsafe(
      next.host,
      `: ${found} is an address inside this network; set PALIGEMMA_ALLOW_PRIVATE_ADDRESSES=1 if the hub's files are ` +
        'there'
    )
  }
  return next
}

// Larger answers of the API are refused: a page of a file list has 1000 entries of some 400 bytes.
const maxJsonBytes = 4 * 1024 * 1024
// JSON.parse of all at once would hold up everything: for seconds, where the hub is a stranger's.
const [jsonAtOnce, mostMembers] = [1 << 16, 100_000]

/** A JSON answer of the hub's API, with retries. */
export async function requestJson(
  client: HubClient,
  url: string,
  subject: Subject
): Promise<{ json: unknown; headers: Headers }> {
  return await withRetries(client, subject.id, async () => {
    const { response, body, release } = await request(client, url, subject, { accept: 'application/json' })
    try {
      const parts = new Pieces()
      for await (const part of body()) {
        parts.add(part)
        if (parts.bytes > maxJsonBytes)
          throw new PaliGemmaError('ERR_DOWNLOAD_FAILED', `${url}: the answer is larger than ${maxJsonBytes} bytes`)
      }
      try {
        const json = await parseLongJson(parts.joined(), jsonAtOnce, mostMembers)
        return { json, headers: response.headers }
      } catch (cause) {
        throw new PaliGemmaError(
          'ERR_DOWNLOAD_FAILED',
          `${url}: the answer is no JSON that a hub sends; is HF_ENDPOINT a Hugging Face hub?`,
          { cause }
        )
      }
    } finally {
      release()
    }
  })
}
