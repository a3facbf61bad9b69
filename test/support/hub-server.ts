/** A hub on this machine: its API, its redirects to a file server of another origin, and every way to misbehave. */
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export const sha256 = (content: Buffer): string => createHash('sha256').update(content).digest('hex')
export const gitSha1 = (content: Buffer): string =>
  createHash('sha1').update(`blob ${content.length}\0`).update(content).digest('hex')

export interface SeenRequest {
  at: 'hub' | 'files'
  method: string
  path: string
  headers: IncomingMessage['headers']
}

export type Handler = (request: IncomingMessage, response: ServerResponse, seen: SeenRequest) => boolean | undefined

export class TestHub {
  readonly id = 'org/tiny-model'
  commit = 'c0ffee'.padEnd(40, '0')
  readonly seen: SeenRequest[] = []
  /** Asked first, for both servers; true: it answered. */
  intercept: Handler = () => false
  /** What the list of files says, where that differs from the truth. */
  lies: Record<string, { size?: number; sha256?: string }> = {}
  /** Entries of the list that are no files. */
  extraEntries: unknown[] = []
  pageSize = 1000
  private hub!: Server
  private fileServer!: Server

  private constructor(readonly files: Map<string, Buffer>) {}

  static async start(files: Record<string, Buffer | string>): Promise<TestHub> {
    const hub = new TestHub(
      new Map(Object.entries(files).map(([path, content]) => [path, Buffer.from(content as Buffer)]))
    )
    hub.hub = await listen((request, response) => hub.answer('hub', request, response))
    hub.fileServer = await listen((request, response) => hub.answer('files', request, response))
    // Known after `stop` too.
    const address = (server: Server) => `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    hub.url = address(hub.hub)
    hub.filesUrl = address(hub.fileServer)
    return hub
  }

  url = ''
  filesUrl = ''

  async stop(): Promise<void> {
    for (const server of [this.hub, this.fileServer].filter(({ listening }) => listening)) {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    }
  }

  requestsFor(file: string, at: 'hub' | 'files'): SeenRequest[] {
    return this.seen.filter((one) => one.at === at && one.path.endsWith(`/${file}`))
  }

  isLarge(path: string): boolean {
    return /\.(safetensors|gguf|model)$/.test(path)
  }

  private answer(at: 'hub' | 'files', request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url!, 'http://x')
    const seen: SeenRequest = { at, method: request.method!, path: url.pathname, headers: request.headers }
    this.seen.push(seen)
    if (this.intercept(request, response, seen)) return
    if (at === 'files') return this.sendFile(url.pathname.slice(1), request, response)
    const api = `/api/models/${this.id}`
    if (url.pathname === `${api}/revision/main` || url.pathname === `${api}/revision/${this.commit}`)
      return json(response, { id: this.id, sha: this.commit })
    if (url.pathname.startsWith(`${api}/revision/`)) return refuse(response, 404, 'RevisionNotFound')
    if (url.pathname === `${api}/tree/${this.commit}`) return this.list(url, response)
    const resolve = `/${this.id}/resolve/${this.commit}/`
    if (!url.pathname.startsWith(resolve)) return refuse(response, 404, 'RepoNotFound')
    const path = decodeURIComponent(url.pathname.slice(resolve.length))
    const content = this.files.get(path)
    if (!content) return refuse(response, 404, 'EntryNotFound')
    response.setHeader('x-repo-commit', this.commit)
    if (!this.isLarge(path)) {
      response.setHeader('etag', `"${gitSha1(content)}"`)
      return this.sendFile(path, request, response)
    }
    response
      .writeHead(302, {
        location: `${this.filesUrl}/${path}`,
        'x-linked-etag': `"${this.lies[path]?.sha256 ?? sha256(content)}"`,
        'x-linked-size': String(this.lies[path]?.size ?? content.length),
        'accept-ranges': 'bytes'
      })
      .end()
  }

  private list(url: URL, response: ServerResponse): void {
    const entries: unknown[] = [
      { type: 'directory', path: 'images', oid: '0'.repeat(40), size: 0 },
      ...this.extraEntries
    ]
    for (const [path, content] of this.files) {
      const size = this.lies[path]?.size ?? content.length
      entries.push(
        this.isLarge(path)
          ? {
              type: 'file',
              path,
              size,
              oid: gitSha1(Buffer.from('pointer')),
              lfs: { oid: this.lies[path]?.sha256 ?? sha256(content), size, pointerSize: 135 },
              xetHash: 'f'.repeat(64)
            }
          : { type: 'file', path, size, oid: gitSha1(content) }
      )
    }
    const start = Number(url.searchParams.get('cursor') ?? 0)
    if (start + this.pageSize < entries.length)
      response.setHeader(
        'link',
        `<${this.url}${url.pathname}?recursive=true&cursor=${start + this.pageSize}>; rel="next"`
      )
    json(response, entries.slice(start, start + this.pageSize))
  }

  /** Ranges, If-Range and ETag as file servers do. `headers` and `body` change the answer. */
  sendFile(path: string, request: IncomingMessage, response: ServerResponse, { etag = `"v1-${path}"` } = {}): void {
    const content = this.files.get(path)!
    if (!response.hasHeader('etag')) response.setHeader('etag', etag)
    const range = /^bytes=(\d+)-$/.exec(request.headers.range ?? '')
    const condition = request.headers['if-range']
    if (!range || (condition !== undefined && condition !== response.getHeader('etag'))) {
      response.writeHead(200, { 'content-length': content.length }).end(content)
      return
    }
    const from = Number(range[1])
    if (from >= content.length) {
      response.writeHead(416, { 'content-range': `bytes */${content.length}` }).end()
      return
    }
    response
      .writeHead(206, {
        'content-length': content.length - from,
        'content-range': `bytes ${from}-${content.length - 1}/${content.length}`
      })
      .end(content.subarray(from))
  }
}

async function listen(handler: (request: IncomingMessage, response: ServerResponse) => void): Promise<Server> {
  const server = createServer(handler)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return server
}

export function json(response: ServerResponse, value: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value))
}

export function refuse(
  response: ServerResponse,
  status: number,
  code?: string,
  headers: Record<string, string> = {}
): void {
  response
    .writeHead(status, { ...(code && { 'x-error-code': code, 'x-error-message': `${code} said the hub` }), ...headers })
    .end('no')
}
