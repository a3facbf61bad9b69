/** A hub with a model in two parts, a stand-in for the conversion, and ways to misbehave. */
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import { join } from 'node:path'
import { afterAll, afterEach, beforeEach } from 'vitest'
import type { convert } from '../../lib/convert'
import { pull } from '../../lib/hub/pull'
import type { PullHooks, PullOptions } from '../../lib/hub/pull-options'
import { Cache } from '../../lib/hub/cache'
import { removeTempDirs, tempDir } from './convert-helpers'
import { TestHub } from './hub-server'

export const noise = (bytes: number, seed: number): Buffer => {
  const buffer = Buffer.alloc(bytes)
  for (let i = 0; i < bytes; i++) buffer[i] = (seed = (seed * 1103515245 + 12345) & 0x7fffffff) >> 16
  return buffer
}
export const files = {
  'config.json': JSON.stringify({ model_type: 'paligemma', torch_dtype: 'bfloat16' }),
  'tokenizer.model': noise(1000, 1),
  'model.safetensors.index.json': '{}',
  'model-00001-of-00002.safetensors': noise(600_000, 2),
  'model-00002-of-00002.safetensors': noise(300_000, 3),
  'README.md': 'not needed',
  'tokenizer.json': '{}'
}
export const first = 'model-00001-of-00002.safetensors'
export const firstContent = files[first]

/** Joins what was downloaded, so that the result shows whether every byte came through. */
export const fakeConvert: typeof convert = async ({ source: from, out, type, onProgress }) => {
  const source = from as string
  const names = readdirSync(source)
    .filter((name) => name.endsWith('.safetensors'))
    .sort()
  writeFileSync(out, Buffer.concat(names.map((name) => readFileSync(join(source, name)))))
  onProgress?.(1)
  return { path: String(out), bytes: statSync(out).size, type: type!, tensors: 1, parameters: 1, notes: ['converted'] }
}
export const wholeModel = Buffer.concat([firstContent, files['model-00002-of-00002.safetensors']])

/** Of the running test. */
export let hub: TestHub
export let cacheDir: string
export const messages: string[] = []

/** A hub and an empty cache for each test of a file. */
export function useHub(): void {
  beforeEach(async () => {
    hub = await TestHub.start(files)
    cacheDir = tempDir()
    messages.length = 0
  })
  afterEach(async () => {
    await hub.stop()
  })
  afterAll(removeTempDirs)
}

export const hooks = (extra: Partial<PullHooks> = {}): PullHooks => ({
  timing: { stallMs: 300, pauseMs: 5, maxPauseMs: 20, attempts: 4 },
  convert: fakeConvert,
  env: { HF_HOME: join(cacheDir, 'no-hf') },
  lockTiming: { beatMs: 50, deadMs: 2000 },
  ...extra
})
export const run = async (options: PullOptions = {}, extra: Partial<PullHooks> = {}) =>
  await pull(
    hub.id,
    { endpoint: hub.url, cacheDir, onMessage: (message) => messages.push(message), ...options },
    hooks(extra)
  )
export const downloadDir = () => new Cache(cacheDir).downloadDir(hub.id, hub.commit)
export const failure = async (options: PullOptions = {}, extra: Partial<PullHooks> = {}) => {
  const error = await run(options, extra).then(
    () => {
      throw new Error('it did not fail')
    },
    (reason: unknown) => reason
  )
  return error as { code: string; message: string }
}

/** Misbehaves for the first `times` content requests of a file, at the server that has the content. */
export function misbehave(
  file: string,
  times: number,
  how: (response: ServerResponse, content: Buffer, from: number) => void
): void {
  let left = times
  hub.intercept = (request, response, { at, path }) => {
    if (at !== 'files' || !path.endsWith(file) || left-- <= 0) return false
    how(response, hub.files.get(file)!, Number(/^bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0))
    return true
  }
}

export function sendPart(response: ServerResponse, content: Buffer, from: number, count: number): void {
  response.writeHead(from > 0 ? 206 : 200, {
    etag: `"v1-${first}"`,
    'content-length': content.length - from,
    ...(from > 0 && { 'content-range': `bytes ${from}-${content.length - 1}/${content.length}` })
  })
  response.write(content.subarray(from, from + count))
}

/** Sends a piece, then breaks the connection off. What of it arrives before the break is up to the system. */
export function breakOff(response: ServerResponse, content: Buffer, from: number, count: number): void {
  sendPart(response, content, from, count)
  setTimeout(() => response.destroy(), 50)
}
export const offset = (range: string | undefined): number => Number(/^bytes=(\d+)-$/.exec(range ?? '')?.[1])
