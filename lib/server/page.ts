/** The page at "/": files that browsers take as they are. Nothing in it asks any other machine. */
import type { Hono } from './vendored'
import { createHash } from 'node:crypto'
import { readFile, readdir } from 'node:fs/promises'
import { extname, join } from 'node:path'
import { demoImage } from '../base/package-files'

// dist/server and lib/server both have it beside them
const folder = typeof __dirname === 'string' ? join(__dirname, 'page') : ''

const types: Record<string, string> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png'
}

const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self' blob: data:",
  "media-src 'self' blob:",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'"
].join('; ')

const headers = {
  'content-security-policy': policy,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'permissions-policy': 'camera=(self), microphone=(), geolocation=()',
  'cache-control': 'no-cache'
}

interface File {
  bytes: Uint8Array<ArrayBuffer>
  type: string
  etag: string
}

async function readOne(path: string, type: string): Promise<File> {
  const bytes = new Uint8Array(await readFile(path))
  return { bytes, type, etag: `"${createHash('sha256').update(bytes).digest('base64url').slice(0, 22)}"` }
}

async function readPage(): Promise<Map<string, File>> {
  const files = new Map<string, File>()
  for (const name of await readdir(folder).catch(() => [])) {
    const type = types[extname(name)]
    if (type === undefined) continue
    files.set(name, await readOne(join(folder, name), type))
  }
  const example = await readOne(demoImage, types['.png']!).catch(() => undefined)
  if (example) files.set('example.png', example)
  return files
}

/** Adds a page to the app; where a bundle left its files behind, "/" is 404 and all else works. */
export function pageHandler(app: Hono, basePath: string, start: 'index.html' | 'live.html' = 'index.html'): void {
  let reading: Promise<Map<string, File>> | undefined
  const give = async (request: Request, name: string): Promise<Response | undefined> => {
    const file = (await (reading ??= readPage())).get(name)
    if (!file) return undefined
    const { bytes, type, etag } = file
    if (request.headers.get('if-none-match') === etag)
      return new Response(null, { status: 304, headers: { ...headers, etag } })
    return new Response(bytes, { headers: { ...headers, 'content-type': type, etag } })
  }
  app.get(`${basePath}/`, async (context) => (await give(context.req.raw, start)) ?? context.notFound())
  // its links are relative
  if (basePath !== '') app.get(basePath, (context) => context.redirect(`${basePath}/`))
  app.get(`${basePath}/page/:name`, async (context) => {
    return (await give(context.req.raw, context.req.param('name'))) ?? context.notFound()
  })
}
