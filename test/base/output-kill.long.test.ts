/** A full disk and kill -9 at any moment leave the old file or the new one. */
import { spawn, spawnSync } from 'node:child_process'
import { copyFileSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { convert } from '../../lib/convert'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { golden, hasGolden } from '../support/golden'

afterAll(removeTempDirs)

const dist = join(__dirname, '..', '..', 'dist')

/** Runs the script until it says something, then kills it `delayMs` later. */
async function killedAfter(script: string, args: string[], delayMs: number): Promise<void> {
  const child = spawn(process.execPath, ['-e', script, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = new Promise((resolve) => child.once('exit', resolve))
  child.stdout.once('data', () => setTimeout(() => child.kill('SIGKILL'), delayMs))
  await ended
}

describe.skipIf(process.platform === 'win32')('a process that is killed', () => {
  it('at 200 random moments inside the write leaves a whole file', async () => {
    const path = join(tempDir(), 'x')
    const size = 1 << 18
    writeFileSync(path, Buffer.alloc(size, 'a'))
    const script = `const { writeOutput } = require(${JSON.stringify(join(dist, 'base', 'output-file.js'))});
      (async () => {
        for (let i = 0; ; i++) {
          const done = writeOutput(process.argv[1], Buffer.alloc(${size}, i % 2 ? 'a' : 'b'))
          if (i === 0) process.stdout.write('writing')
          await done
        }
      })()`
    for (let i = 0; i < 25; i++) {
      // Eight at a time: writers of one file do not disturb each other either.
      await Promise.all(Array.from({ length: 8 }, async () => await killedAfter(script, [path], Math.random() * 20)))
      const bytes = readFileSync(path)
      expect(bytes.length).toBe(size)
      expect(bytes.equals(Buffer.alloc(size, bytes[0]))).toBe(true)
    }
  }, 300_000)

  it.skipIf(!hasGolden)(
    'during conversions leaves the old model or the new one',
    async () => {
      const dir = tempDir()
      const source = golden('hf', 'pg1-tiny')
      const [old, made, out] = ['old.gguf', 'new.gguf', 'out.gguf'].map((name) => join(dir, name)) as [
        string,
        string,
        string
      ]
      await convert({ source, out: made, type: 'f32' })
      writeFileSync(old, 'old')
      const wanted = [readFileSync(old), readFileSync(made)]
      const script = `const { convert } = require(${JSON.stringify(join(dist, 'convert', 'index.js'))});
      const [, source, out] = process.argv
      convert({ source, out, type: 'f32', onProgress: () => process.stdout.write('.') })`
      for (let i = 0; i < 20; i++) {
        copyFileSync(old, out)
        await killedAfter(script, [source, out], Math.random() * 60)
        expect(statSync(out).isFile()).toBe(true)
        expect(wanted.some((bytes) => bytes.equals(readFileSync(out)))).toBe(true)
      }
    },
    300_000
  )
})

it.skipIf(process.platform === 'win32')('a disk that is full is ERR_DISK_FULL and leaves the old file', () => {
  const dir = tempDir()
  const path = join(dir, 'x')
  writeFileSync(path, 'old')
  const script = `require(${JSON.stringify(join(dist, 'base', 'output-file.js'))})
    .writeOutput(process.argv[1], Buffer.alloc(1 << 20)).catch((error) => console.log(error.code, error.message))`
  // A limit of the file size stands for a full disk.
  const shell = ['-c', 'ulimit -f 100; exec "$0" -e "$1" "$2"', process.execPath, script, path]
  expect(spawnSync('bash', shell, { encoding: 'utf8' }).stdout).toMatch(/^ERR_DISK_FULL .*\/x: /)
  expect(readFileSync(path, 'utf8')).toBe('old')
  expect(readdirSync(dir)).toEqual(['x'])
})
