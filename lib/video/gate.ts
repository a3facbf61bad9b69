/**
 * The way to the network for ffmpeg, which follows redirects and playlists by itself: a proxy on loopback that leads to
 * public addresses alone. Names are checked where they are resolved for the connection, so what is checked is what is
 * asked.
 */
import { randomBytes } from 'node:crypto'
import http, { type IncomingMessage, type OutgoingHttpHeaders, type ServerResponse } from 'node:http'
import net, { type AddressInfo } from 'node:net'
import { pipeline, type Duplex } from 'node:stream'
import { isPrivateAddress, isThisMachine, lookUpPublic } from '../base/addresses'

/** For one ffmpeg, or several that read the same video. */
export interface Pass {
  /** Variables for ffmpeg. */
  env: Record<string, string>
  /** The address that it was refused, if there was one. */
  refused: () => string | undefined
}

const mostRemembered = 1000
/** What belongs to one connection, not to what comes over it. */
const hopByHop = ['connection', 'keep-alive', 'proxy-authorization', 'proxy-connection', 'transfer-encoding', 'upgrade']

/** Tells whose connection it is by its user name, and strangers by the password. */
export class Gate {
  private readonly secret = randomBytes(16).toString('hex')
  private readonly refusals = new Map<string, string>()
  private passes = 0

  private constructor(
    private readonly server: http.Server,
    private readonly isInside: (address: string) => boolean
  ) {}

  static async open(isInside = isPrivateAddress): Promise<Gate> {
    const server = http.createServer()
    const gate = new Gate(server, isInside)
    server.on('request', (request, response) => gate.forward(request, response))
    server.on('connect', (request: IncomingMessage, socket: Duplex) => gate.tunnel(request, socket))
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(0, '127.0.0.1', resolve)
    })
    server.unref()
    return gate
  }

  pass(): Pass {
    const id = String(this.passes++)
    const { port } = this.server.address() as AddressInfo
    const proxy = `http://${id}:${this.secret}@127.0.0.1:${port}`
    return { env: { http_proxy: proxy, https_proxy: proxy, no_proxy: '' }, refused: () => this.refusals.get(id) }
  }

  close(): void {
    this.server.close()
    this.server.closeAllConnections()
  }

  /** The pass that a request came with; undefined: none of ours. */
  private passOf({ headers }: IncomingMessage): string | undefined {
    const [, encoded = ''] = /^Basic (\S+)$/i.exec(headers['proxy-authorization'] ?? '') ?? []
    const [id, secret] = Buffer.from(encoded, 'base64').toString('latin1').split(':')
    return secret === this.secret ? id : undefined
  }

  /** http: asked by us. */
  private forward(request: IncomingMessage, response: ServerResponse): void {
    const pass = this.passOf(request)
    if (pass === undefined)
      return void response.writeHead(407, { 'proxy-authenticate': 'Basic realm="paligemma"' }).end()
    const url = URL.canParse(request.url!) ? new URL(request.url!) : undefined
    if (url?.protocol !== 'http:') return void response.writeHead(400).end()
    const lookup = this.lookUp(pass, url.hostname)
    if (!lookup) return void response.writeHead(403).end()
    const asked = http.request(url, { method: request.method, headers: passed(request.headers), lookup, agent: false })
    asked.on('response', (answer) => {
      response.writeHead(answer.statusCode!, passed(answer.headers))
      pipeline(answer, response, () => {})
    })
    asked.on('error', () => (response.headersSent ? response.destroy() : response.writeHead(502).end()))
    response.on('close', () => asked.destroy())
    request.pipe(asked)
  }

  /** https: what goes through is between ffmpeg and the server. */
  private tunnel(request: IncomingMessage, socket: Duplex): void {
    socket.on('error', () => {})
    const pass = this.passOf(request)
    const refuse = (status: string): void => void socket.end(`HTTP/1.1 ${status}\r\ncontent-length: 0\r\n\r\n`)
    if (pass === undefined)
      return refuse('407 Proxy Authentication Required\r\nproxy-authenticate: Basic realm="paligemma"')
    const [, host, port] = /^(.*):(\d{1,5})$/.exec(request.url!) ?? []
    const lookup = host === undefined ? undefined : this.lookUp(pass, host)
    if (!lookup) return refuse('403 Forbidden')
    const remote = net.connect({ host: bare(host!), port: Number(port), lookup })
    remote.on('error', () => refuse('502 Bad Gateway'))
    remote.once('connect', () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n')
      pipeline(socket, remote, socket, () => {})
    })
    socket.on('close', () => remote.destroy())
  }

  /** undefined: the host is an address inside. Sockets ask for names only. */
  private lookUp(pass: string, host: string): net.LookupFunction | undefined {
    const refuse = (address: string): Error => {
      if (this.refusals.size >= mostRemembered) this.refusals.delete(this.refusals.keys().next().value!)
      this.refusals.set(pass, address)
      return new Error(`${address} is inside`)
    }
    const name = bare(host)
    if (net.isIP(name) ? this.isInside(name) : isThisMachine(name)) {
      refuse(name)
      return undefined
    }
    return lookUpPublic(refuse, this.isInside)
  }
}

const bare = (host: string): string => host.replace(/^\[|\]$/g, '')

function passed(headers: OutgoingHttpHeaders): OutgoingHttpHeaders {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !hopByHop.includes(name)))
}

let shared: Promise<Gate> | undefined

/**
 * Where a proxy of the user's decides where ffmpeg may go, a pass that leads all through it: ffmpeg takes that of
 * `http_proxy` if it is an http: one, and would pass it by for the hosts of `no_proxy`, which are those inside.
 */
export async function publicPass(): Promise<Pass> {
  if (process.env['http_proxy']?.startsWith('http://')) return { env: { no_proxy: '' }, refused: () => undefined }
  shared ??= Gate.open()
  shared.catch(() => (shared = undefined))
  return (await shared).pass()
}
