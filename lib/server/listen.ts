/** On a port: Node's server with the timeouts that keep slow and broken clients from holding it. */
import { getRequestListener } from './vendored'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { isIP, type AddressInfo, type Socket } from 'node:net'
import { untilAborted } from '../base/signals'
import { wrongOption } from '../base/validate'
import { failureOf, ApiError } from './errors'
import { hostCheck, type Keys } from './guards'
import type { ListenOptions } from './options'

export interface Listener {
  host: string
  port: number
  /** Takes no more connections; resolves when all are closed. */
  stop: () => Promise<void>
  destroy: () => void
}

const headersTimeoutMs = 15_000
const keepAliveTimeoutMs = 5_000
const idleCheckMs = 20

export async function listen(
  fetch: (request: Request) => Promise<Response>,
  options: ListenOptions,
  keys: Keys
): Promise<Listener> {
  const { port = 8080, host = '127.0.0.1', requestTimeoutMs = 60_000, stalledTimeoutMs = 30_000 } = options
  const handle = getRequestListener(fetch, { overrideGlobalObjects: false })
  const mayAsk = hostCheck(host, keys, options.allowedHosts)
  const server = createServer(
    {
      headersTimeout: Math.min(headersTimeoutMs, requestTimeoutMs),
      requestTimeout: requestTimeoutMs,
      keepAliveTimeout: keepAliveTimeoutMs,
      connectionsCheckingInterval: Math.min(5000, requestTimeoutMs)
    },
    (request, response) => {
      if (mayAsk && !mayAsk(request.headers.host)) return refuseHost(request, response)
      void handle(request, response)
    }
  )
  server.maxConnections = options.maxConnections ?? 1024
  // A client that takes nothing of its answer; one that waits for its answer has nothing to take.
  server.timeout = stalledTimeoutMs
  server.on('timeout', (socket: Socket) => {
    if (socket.writableLength > 0) socket.destroy()
  })
  await untilAborted(
    new Promise<void>((resolve, reject) => {
      server.once('error', (error: NodeJS.ErrnoException) => reject(refused(error, port, host)))
      server.listen({ port, host }, resolve)
    }),
    options.signal
  ).catch((error: unknown) => {
    server.close()
    throw error
  })
  const found = server.address() as AddressInfo
  return {
    host: isIP(host) ? found.address : host,
    port: found.port,
    stop: async () =>
      await new Promise((resolve) => {
        // connections that are kept alive become idle when their answers are out
        const timer = setInterval(() => server.closeIdleConnections(), idleCheckMs)
        server.close(() => {
          clearInterval(timer)
          resolve()
        })
      }),
    destroy: () => server.closeAllConnections()
  }
}

/** What the system said about the address that was asked for. */
function refused(error: NodeJS.ErrnoException, port: number, host: string): Error {
  if (error.code === 'EADDRINUSE') return wrongOption('port', `a port of ${host} that is free`, port, error)
  if (error.code === 'EADDRNOTAVAIL' || error.syscall === 'getaddrinfo')
    return wrongOption('host', 'an address of this machine', host, error)
  if (error.code === 'EACCES' || error.code === 'EPERM')
    return wrongOption('port', 'a port that this user may listen on (1024 or more)', port, error)
  return wrongOption('port', `a port of ${host} that can be listened on (${error.code})`, port, error)
}

function refuseHost(request: IncomingMessage, response: ServerResponse): void {
  const host = String(request.headers.host).slice(0, 100)
  const error = new ApiError(
    403,
    'ERR_ACCESS_DENIED',
    `This server is asked as ${JSON.stringify(host)}, which is not its name; allowedHosts (--allowed-host) lists more`
  )
  response.writeHead(403, { 'content-type': 'application/json', connection: 'close' })
  response.end(JSON.stringify(failureOf(error).body))
}
