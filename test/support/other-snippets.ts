/** Snippets of the documentation that name models and pictures of the reader's own, with such files beside them. */
import { copyFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { runnable, snippets, toJavaScript } from './snippets'

const demo = join(__dirname, '..', '..', 'demo')

/** What needs more than a model and a picture runs elsewhere. */
const elsewhere: Readonly<Record<string, RegExp>> = {
  'test/docs/answers': /\/\/ → /,
  'test/frameworks': /from '(?:ai|openai|@langchain|@llamaindex)|electron|\.node'/,
  'test/server': /node-paligemma\/server/,
  'test/queue': /node-paligemma\/queue/,
  'test/hub': /\bpull\(|removePulled\(/,
  'test/train': /adapters: \[|\.fit\(/,
  'test/video': /\.mp4|rtsp:|\/dev\/video/,
  'test/retrieval': /colpali|rescore\(|similarityMap\(/
}

/** What readers have by then. */
const prelude = `
import * as everything from 'node-paligemma'
import { writeFile } from 'node:fs/promises'
const { demoImage: image, loadModel } = everything
const model = await loadModel('demo')
const objects = await model.detect(image, 'purple ring')
const names = { model, image, page: image, before: image, after: image, paths: [image], objects, writeFile }
Object.assign(globalThis, everything, names, { schema: { enum: ['359', 'none'] }, app: { post() {} } })
process.env.MODEL = 'demo'
`

/** Writes them all into an application's folder; the name of the script that runs them. */
export function writeOthers(app: string): string {
  const known = new Set(runnable().map(({ text }) => text))
  const others = snippets(['js', 'mjs', 'cjs', 'ts'])
    .filter(({ text }) => !known.has(text))
    .filter(({ text }) => !Object.values(elsewhere).some((pattern) => pattern.test(text)))
  if (others.length < 13) throw new Error(`Only ${others.length} snippets were found`)
  const script = [`await import('./prelude.mjs')`]
  for (const [i, snippet] of others.entries()) {
    for (const [, name, kind] of snippet.text.matchAll(/'([\w-]+\.(jpg|png|gguf))'/g))
      copyFileSync(join(demo, kind === 'gguf' ? 'paligemma2-demo.gguf' : 'shapes.png'), join(app, name!))
    const file = `other-${i}.${/\brequire\(/.test(snippet.text) ? 'cjs' : 'mjs'}`
    writeFileSync(join(app, file), toJavaScript(snippet).code.replace(/'google\/[\w-]+'/g, "'demo'"))
    script.push(`await import('./${file}').catch((error) => { console.error('${snippet.where}', error) })`)
  }
  writeFileSync(join(app, 'prelude.mjs'), prelude)
  writeFileSync(join(app, 'others.mjs'), script.join('\n'))
  return 'others.mjs'
}
