/** What long verbs write to terminals: narrow ones, dumb ones, none. */
import { spawn, spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { demoModel } from '../../lib/base/package-files'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { golden, hasGolden } from '../support/golden'
import { TestHub } from '../support/hub-server'

const main = join(__dirname, '..', '..', 'dist', 'cli', 'main.js')
const checkpoint = golden('hf', 'pg2-tiny')
const hasTerminals = spawnSync('script', ['-qec', 'stty cols 10', '/dev/null'], { input: '' }).status === 0

let hub: TestHub
beforeAll(async () => {
  const names = hasGolden ? readdirSync(checkpoint) : []
  const wanted = names.filter((name) => /\.(json|model|safetensors)$/.test(name) && !name.startsWith('expected'))
  hub = await TestHub.start(Object.fromEntries(wanted.map((name) => [name, readFileSync(join(checkpoint, name))])))
})
afterAll(async () => {
  await hub.stop()
  removeTempDirs()
})

const verbs: Record<string, (folder: string) => string[]> = {
  convert: (folder) => ['convert', checkpoint, '--out', join(folder, 'c.gguf')],
  quantize: (folder) => ['quantize', demoModel, join(folder, 'q.gguf'), '--type', 'Q8_0'],
  pull: () => ['pull', hub.id, '--type', 'f32']
}

/** Output and errors together, as a terminal of so many columns shows them; undefined: no terminal. */
async function run(verb: string, columns: number | undefined, term = 'xterm'): Promise<string> {
  const folder = tempDir()
  const words = [process.execPath, main, ...verbs[verb]!(folder)].map((word) => `'${word}'`).join(' ')
  const [program, args] =
    columns === undefined
      ? ['sh', ['-c', `${words} 2>&1`]]
      : ['script', ['-qfec', `stty cols ${columns}; ${words}`, '/dev/null']]
  const own = { TERM: term, HF_ENDPOINT: hub.url, PALIGEMMA_CACHE: folder, HF_HOME: join(folder, 'hf'), HF_TOKEN: '' }
  const child = spawn(program, args, { env: { ...process.env, ...own }, stdio: ['ignore', 'pipe', 'inherit'] })
  const [said] = await Promise.all([text(child.stdout), new Promise((resolve) => child.on('exit', resolve))])
  return said
}

/** What was drawn in place, between two returns to the start of the line; what follows the last one stays. */
const drawn = (said: string): string[] =>
  said.split('\n').flatMap((line) => line.replace(/\r$/, '').split('\r').slice(1, -1))

describe.skipIf(!hasGolden || !hasTerminals).each(Object.keys(verbs))('%s', (verb) => {
  it.each([10, 5, 1, 0])('draws its progress within %i columns, and removes it', async (columns) => {
    const said = await run(verb, columns)
    expect(said).toMatch(/F32|Q8_0/)
    expect(said).not.toContain('\x1b')
    const frames = drawn(said)
    for (const frame of frames) expect(frame.length).toBeLessThan(columns || 80)
    if (columns !== 1) expect(frames).toContainEqual(expect.stringMatching(/100%/))
  })

  it('draws nothing on a dumb terminal and on none', async () => {
    for (const said of [await run(verb, 80, 'dumb'), await run(verb, undefined)]) {
      expect(said).toMatch(/F32|Q8_0/)
      expect(said).not.toMatch(/\x1b|\r(?!\n)|\d%/)
    }
  })
})
