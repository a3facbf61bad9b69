/** The table of every-call.addon.test.ts for `node-paligemma/server`, and hostile values inside requests' bodies. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { PaliGemma } from '../../lib/api/model'
import * as api from '../../lib/server'
import { attackRows, type Row } from '../support/call-table'
import { open, refuseUnhandled } from '../support/fake-model'
import { FakeNative } from '../support/fake-native'
import { signal } from '../support/output-rows'

refuseUnhandled()

const fake = new FakeNative(() => ['a'])
let model: PaliGemma
let server: api.PaliGemmaServer
beforeAll(async () => {
  model = await open(fake)
  server = api.createServer({ models: { fake: model }, logger: false })
})
afterAll(async () => await server.close({ timeoutMs: 0 }))

const nothing = (): void => {}
const options = (): api.ServerOptions => ({
  models: { fake: model, adapted: { base: 'fake', adapters: [] }, later: { model: 'later.gguf' } },
  lazy: true,
  idleUnloadMs: 1000,
  apiKeys: ['key'],
  cors: ['https://example.com'],
  basePath: '/api',
  page: true,
  maxQueue: 2,
  deadlineMs: 1000,
  maxBodyBytes: 4096,
  maxImages: 2,
  remoteImages: false,
  logger: { info: nothing, error: nothing },
  logContent: false
})

const once = async (use: (server: api.PaliGemmaServer) => unknown): Promise<void> => {
  const mine = api.createServer({ models: { fake: model }, logger: false })
  try {
    await use(mine)
  } finally {
    await mine.close({ timeoutMs: 0 })
  }
}

const rows: Record<string, Row> = {
  createServer: {
    sync: true,
    call: (...args: never[]) =>
      void (api.createServer as (...args: never[]) => api.PaliGemmaServer)(...args).close({ timeoutMs: 0 }),
    args: () => [options()]
  },
  'server.fetch': {
    call: async (...args: never[]) => await (server.fetch as (...args: never[]) => Promise<Response>)(...args),
    args: () => [new Request('http://localhost/health')]
  },
  'server.ready': { call: async () => await server.ready(), args: () => [] },
  'server.listen': {
    call: async (...args: never[]) =>
      await once(async (mine) => await (mine.listen as (...args: never[]) => Promise<unknown>)(...args)),
    args: () => [
      {
        port: 0,
        host: '127.0.0.1',
        allowedHosts: ['example.com'],
        maxConnections: 2,
        requestTimeoutMs: 1000,
        stalledTimeoutMs: 1000,
        signal
      }
    ]
  },
  'server.close': {
    call: async (...args: never[]) => {
      const mine = api.createServer({ models: { fake: model }, logger: false })
      try {
        await (mine.close as (...args: never[]) => Promise<void>)(...args)
      } finally {
        await mine.close({ timeoutMs: 0 })
      }
    },
    args: () => [{ timeoutMs: 0 }]
  }
}

describe('every function of the server', { tags: ['slow'] }, () => {
  it('has a row', () => {
    expect(Object.keys(api)).toEqual(['createServer'])
    // a method more in the interface does not compile here
    const offered: Record<Exclude<keyof api.PaliGemmaServer, symbol>, true> = {
      fetch: true,
      ready: true,
      listen: true,
      close: true
    }
    expect(Object.keys(offered).map((name) => `server.${name}`)).toEqual(Object.keys(rows).slice(1))
  })

  attackRows(rows)
})
