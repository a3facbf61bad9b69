/** kill -9 at random moments of every verb that writes a file: the old one stays or the new one is there, whole. */
import { spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { inspectModel } from '../../lib/index'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { golden, hasGoldens } from '../support/golden'
import { TestHub } from '../support/hub-server'
import { writeTinyModel } from '../support/tiny-model'

afterAll(removeTempDirs)

const child = join(__dirname, '..', 'support', 'killed-child.cjs')
const checkpoint = golden('hf', 'pg2-tiny')
/** Kills of each verb: 200 in all. */
const kills = 40
const together = 2

/** Starts the verb, waits until it is in its rounds, and kills it somewhere in the next two. */
async function killed(verb: string, folder: string, source: string): Promise<void> {
  const started = spawn(process.execPath, [child, verb, folder, source], { stdio: ['ignore', 'pipe', 'pipe'] })
  let errors = ''
  started.stderr.setEncoding('utf8').on('data', (text: string) => (errors += text))
  started.stdout.once('data', (ms) => setTimeout(() => started.kill('SIGKILL'), Math.random() * 2 * Number(ms)))
  const signal = await new Promise((resolve) => started.once('exit', (_, by) => resolve(by)))
  expect({ signal, errors }).toEqual({ signal: 'SIGKILL', errors: '' })
}

/** The GGUFs below a folder by their paths, and how many unfinished files lie beside them. */
function filesOf(folder: string): { whole: string[]; parts: number } {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  return {
    whole: names.filter((name) => /\.gguf$/.test(name)).map((name) => join(folder, name)),
    parts: names.filter((name) => /\.part$/.test(name)).length
  }
}

/** Returns how often a file was caught half written under its other name. */
async function killOften(verb: string, source: string): Promise<number> {
  const folders = Array.from({ length: together }, () => join(tempDir(), 'work'))
  let caught = 0
  const one = async (folder: string): Promise<void> => {
    for (let i = 0; i < kills / together; i++) {
      await killed(verb, folder, source)
      const wanted = ['0.gguf', '1.gguf'].map((name) => readFileSync(join(folder, name)))
      const { whole, parts } = filesOf(folder)
      for (const path of whole)
        expect(
          wanted.some((bytes) => bytes.equals(readFileSync(path))),
          path
        ).toBe(true)
      if (parts > 0) caught++
    }
    // both are what they should be
    for (const name of ['0.gguf', '1.gguf'])
      expect((await inspectModel(join(folder, name), { maxArray: 0 })).tensors.length).toBeGreaterThan(0)
  }
  await Promise.all(folders.map(one))
  return caught
}

describe.skipIf(process.platform === 'win32')('40 kills at random moments leave a whole file', () => {
  let model: string
  beforeAll(() => {
    model = writeTinyModel()
  })

  it.each(['quantize', 'imatrix', 'fit'])(
    'of %s',
    async (verb) => {
      expect(await killOften(verb, model)).toBeGreaterThan(0)
    },
    600_000
  )

  it.skipIf(!hasGoldens('hf/pg2-tiny'))(
    'of convert',
    async () => {
      expect(await killOften('convert', checkpoint)).toBeGreaterThan(0)
    },
    600_000
  )

  it.skipIf(!hasGoldens('hf/pg2-tiny'))(
    'of pull',
    async () => {
      const names = readdirSync(checkpoint).filter((name) => /\.(json|model|safetensors)$/.test(name))
      const files = names.filter((name) => !name.startsWith('expected'))
      const hub = await TestHub.start(
        Object.fromEntries(files.map((name) => [name, readFileSync(join(checkpoint, name))]))
      )
      try {
        expect(await killOften('pull', hub.url)).toBeGreaterThan(0)
      } finally {
        await hub.stop()
      }
    },
    600_000
  )
})
