/** Routes and what stands before each of them: keys, origins, limits, deadlines, errors, the log. */
import { cors, Hono, type Context } from './vendored'
import { randomUUID } from 'node:crypto'
import { follow } from '../base/signals'
import { readBody } from './body'
import { Call, json, plainPath, type Route, type Services } from './call'
import { ApiError, clientGone, failureOf } from './errors'
import { checkOrigin, type Keys } from './guards'
import { stopping } from './models'

export interface AppParts {
  services: Services
  routes: readonly Route[]
  keys: Keys
  cors: '*' | string[] | undefined
  basePath: string
  /** Aborts what runs when the server is cut off. */
  cut: AbortSignal
  isClosing: () => boolean
}

export function createApp(parts: AppParts): Hono {
  const base = new Hono()
  const app = parts.basePath === '' ? base : base.basePath(parts.basePath)
  if (parts.cors !== undefined)
    app.use(
      '*',
      cors({
        origin: parts.cors,
        exposeHeaders: ['x-request-id', 'retry-after'],
        allowHeaders: ['authorization', 'content-type']
      })
    )
  for (const route of parts.routes)
    app.on(route.method, route.path, async (context) => await answer(parts, route, context))
  const paths = new Map<string, string[]>()
  for (const { path, method } of parts.routes) paths.set(path, [...(paths.get(path) ?? []), method.toUpperCase()])
  for (const [path, methods] of paths) app.all(path, (context) => wrongMethod(context, methods))
  base.notFound((context) => failed(requestId(context.req.raw), unknownPath(context.req.path)))
  base.onError((error, context) => failed(requestId(context.req.raw), error))
  return base
}

function wrongMethod(context: Context, methods: string[]): Response {
  const allow = methods.includes('GET') ? [...methods, 'HEAD'].join(', ') : methods.join(', ')
  const error = new ApiError(405, 'ERR_INVALID_OPTION', `Expected ${allow} for ${context.req.path}`, {
    headers: { allow }
  })
  return failed(requestId(context.req.raw), error)
}

const unknownPath = (path: string): ApiError =>
  new ApiError(
    404,
    'ERR_INVALID_OPTION',
    `There is nothing at ${path.slice(0, 200)}; /openapi.json lists what there is`
  )

/** The caller's where it is one, so that it can be found in the logs of both sides. */
function requestId(request: Request): string {
  const given = request.headers.get('x-request-id')
  return given !== null && /^[\w.:-]{1,128}$/.test(given) ? given : `req_${randomUUID().replaceAll('-', '')}`
}

function failed(id: string, error: unknown): Response {
  const { status, body, headers } = failureOf(error)
  const response = json(body, status)
  for (const [name, value] of Object.entries({ ...headers, 'x-request-id': id })) response.headers.set(name, value)
  return response
}

async function answer(parts: AppParts, route: Route, context: Context): Promise<Response> {
  const { services } = parts
  const request = context.req.raw
  const id = requestId(request)
  const call = new Call(services, request, context.req.param() as Record<string, string>, {
    id,
    path: plainPath(route.path)
  })
  try {
    if (!route.open) parts.keys.check(request.headers)
    if (route.method === 'post') {
      checkOrigin(request, parts.cors)
      await begin(parts, route, call)
    }
    const response = await route.handle(call)
    response.headers.set('x-request-id', id)
    if (!call.streaming && !route.open) call.end(response.status)
    return response
  } catch (error) {
    if (request.signal.aborted) {
      call.end(clientGone)
      return new Response(null, { status: clientGone })
    }
    const response = failed(id, error)
    if (response.status === 429 && !response.headers.has('retry-after'))
      response.headers.set('retry-after', services.admission.retryAfter())
    call.end(response.status, error)
    return response
  }
}

/** A place in the queue, a deadline, the body. */
async function begin(parts: AppParts, route: Route, call: Call): Promise<void> {
  const { services } = parts
  if (parts.isClosing()) throw stopping()
  call.onEnd(services.admission.enter())
  call.onEnd(follow(call.request.signal, (reason) => call.abort(reason)))
  call.onEnd(follow(parts.cut, (reason) => call.abort(reason)))
  const timer = setTimeout(() => call.abort(late(services.deadlineMs)), services.deadlineMs)
  call.onEnd(() => clearTimeout(timer))
  if (route.body) {
    const { maxBodyBytes: maxBytes } = services
    const { signal } = call
    call.body = await readBody(call.request, route.body, { maxBytes, multipart: route.multipart === true, signal })
  }
}

const late = (ms: number): ApiError =>
  new ApiError(
    504,
    'ERR_DEADLINE',
    `The request did not end within ${ms} ms; ask for fewer tokens, or send fewer requests at once`
  )
