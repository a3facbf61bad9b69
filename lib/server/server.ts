/** A server as an object: a fetch handler that other servers mount, and a listener of its own. */
import * as z from './schemas/vendored'
import { loadModel } from '../api/load-model'
import { check, readOptions, rule, type Rule } from '../base/validate'
import { ownController } from '../base/signals'
import { Admission } from './admission'
import { createApp } from './app'
import type { Route, Services } from './call'
import { Keys } from './guards'
import { listen, type Listener } from './listen'
import { loggerOf } from './log'
import { Metrics } from './metrics'
import { Models, stopping, type Load } from './models'
import { openApiDocument } from './openapi'
import {
  closeRules,
  listenRules,
  serverDefaults,
  serverRules,
  type CloseOptions,
  type ListenOptions,
  type ServerOptions
} from './options'
import { pageHandler } from './page'
import { chatRoute } from './routes/chat'
import { embeddingsRoute } from './routes/embeddings'
import { modelRoutes } from './routes/models'
import { objectRoutes } from './routes/objects'
import { healthRoute, metricsRoute, readyRoute } from './routes/operations'
import { keptRoute, responsesRoute } from './routes/responses'
import { taskRoutes } from './routes/tasks'

/** Where a server listens. */
export interface Address {
  /** "http://127.0.0.1:8080", with `basePath` */
  url: string
  /** The address that it listens on; where `host` was a name, that name. */
  host: string
  /** As asked for; the one that was found where that was 0. */
  port: number
}

/** What {@link createServer} makes. */
export interface PaliGemmaServer {
  /**
   * Answers a request: mount it where web requests come in, such as a route of Next, `Bun.serve`, `Deno.serve` or
   * another Hono app. The request's signal ends its work.
   */
  fetch: (request: Request) => Promise<Response>
  /** Resolves when all models are loaded, at once where they are `lazy`. @throws PaliGemmaError as {@link loadModel} */
  ready: () => Promise<void>
  /**
   * Listens on a port of its own. @throws PaliGemmaError ERR_INVALID_OPTION; the system's error where the port is taken
   */
  listen: (options?: ListenOptions) => Promise<Address>
  /**
   * Takes no more requests, waits for those that run, cuts what is left after `timeoutMs`, and unloads the models that
   * it loaded. Idempotent.
   */
  close: (options?: CloseOptions) => Promise<void>
  /** `await using` calls `close`. */
  [Symbol.asyncDispose]: () => Promise<void>
}

/**
 * A server for one or several models: OpenAI's chat completions, responses and embeddings, an endpoint for each task, a
 * page at "/", metrics. See docs/server.md.
 * @throws PaliGemmaError ERR_INVALID_OPTION
 */
export function createServer(options: ServerOptions): PaliGemmaServer {
  return new Server(readOptions<ServerOptions>('createServer', options, serverRules, ['models']), loadModel)
}

/** Of any realm and any maker. */
const requestRule: Rule = {
  expected: 'Request',
  accepts: (v) => {
    const { url, method, headers } = v as Request
    return typeof url === 'string' && typeof method === 'string' && rule.function.accepts(headers.get)
  }
}

/** @internal */
export class Server implements PaliGemmaServer {
  private readonly cut = ownController()
  private readonly services: Services
  private readonly app: ReturnType<typeof createApp>
  private readonly keys: Keys
  private readonly basePath: string
  private readonly preloading: Promise<void>
  private state: 'loading' | 'ready' | 'failed' | 'closing' = 'loading'
  private listeners: Listener[] = []
  private closing: Promise<void> | undefined

  constructor(options: ServerOptions, load: Load) {
    const logger = loggerOf(options.logger)
    const models = new Models(options.models, { load, idleUnloadMs: options.idleUnloadMs, logger })
    const admission = new Admission(options.maxQueue ?? serverDefaults.maxQueue)
    this.services = {
      models,
      admission,
      logger,
      metrics: new Metrics({
        running: () => admission.count,
        models: () => models.names.map((name) => [name, models.isLoaded(name)]),
        stats: () => models.stats()
      }),
      logContent: options.logContent ?? false,
      pictures: {
        maxImages: options.maxImages ?? serverDefaults.maxImages,
        remoteImages: options.remoteImages ?? false,
        maxBodyBytes: options.maxBodyBytes ?? serverDefaults.maxBodyBytes
      },
      maxBodyBytes: options.maxBodyBytes ?? serverDefaults.maxBodyBytes,
      deadlineMs: options.deadlineMs ?? serverDefaults.deadlineMs
    }
    this.keys = new Keys(options.apiKeys ?? [])
    this.basePath = options.basePath ?? ''
    this.app = createApp({
      services: this.services,
      routes: this.routes(),
      keys: this.keys,
      cors: options.cors,
      basePath: this.basePath,
      cut: this.cut.signal,
      isClosing: () => this.state === 'closing'
    })
    if (options.page ?? true) pageHandler(this.app, this.basePath)
    this.preloading = this.preload(options.lazy ?? false)
    this.preloading.catch(() => {}) // ready() tells
  }

  private async preload(lazy: boolean): Promise<void> {
    try {
      if (!lazy) await this.services.models.preload()
      if (this.state === 'loading') this.state = 'ready'
    } catch (error) {
      if (this.state === 'loading') this.state = 'failed'
      throw error
    }
  }

  private routes(): Route[] {
    const routes: Route[] = [
      chatRoute,
      responsesRoute,
      keptRoute,
      embeddingsRoute,
      ...modelRoutes,
      ...objectRoutes,
      ...taskRoutes,
      healthRoute,
      readyRoute(() => this.state),
      metricsRoute
    ]
    let document: string | undefined
    const documentRoute: Route = {
      method: 'get',
      path: '/openapi.json',
      summary: 'This document',
      tag: 'Operations',
      response: z.looseObject({ openapi: z.string() }),
      open: true,
      handle: async () => {
        document ??= JSON.stringify(openApiDocument(all, { basePath: this.basePath, keys: !this.keys.open }))
        return new Response(document, { headers: { 'content-type': 'application/json' } })
      }
    }
    const all = [...routes, documentRoute]
    return all
  }

  readonly fetch = async (request: Request): Promise<Response> => {
    check('request', request, requestRule)
    return await this.app.fetch(request)
  }

  async ready(): Promise<void> {
    await this.preloading
  }

  async listen(given: ListenOptions = {}): Promise<Address> {
    const options = readOptions<ListenOptions>('listen', given, listenRules)
    check('listen', this.state, { expected: 'a server that is not closed', accepts: (v) => v !== 'closing' })
    const listener = await listen(this.fetch, options, this.keys)
    this.listeners.push(listener)
    const { host, port } = listener
    return { host, port, url: `http://${host.includes(':') ? `[${host}]` : host}:${port}${this.basePath}` }
  }

  async close(given: CloseOptions = {}): Promise<void> {
    const { timeoutMs = 30_000 } = readOptions<CloseOptions>('close', given, closeRules)
    this.closing ??= this.closeNow(timeoutMs)
    await this.closing
  }

  private async closeNow(timeoutMs: number): Promise<void> {
    this.state = 'closing'
    const stopped = Promise.all(this.listeners.map(async (listener) => await listener.stop()))
    const { admission } = this.services
    if (!(await admission.drained(timeoutMs))) {
      this.cut.abort(stopping())
      await admission.drained(graceMs)
    }
    await Promise.race([stopped, new Promise((resolve) => setTimeout(resolve, graceMs).unref())])
    for (const listener of this.listeners) listener.destroy()
    await stopped
    await this.services.models.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

/** For answers to say that they were cut, and to leave this machine. */
const graceMs = 1000
