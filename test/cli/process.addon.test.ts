/** The command as a process: full disks, readers that leave, signals, standard input, many pictures. */
import { spawn, spawnSync, type SpawnSyncOptions } from 'node:child_process'
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync
} from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { demoImage } from '../../lib/base/package-files'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { golden, hasGolden } from '../support/golden'
import { hasStrangers, strangersProcess } from '../support/permissions'
import { writeSyntheticCheckpoint } from '../support/synthetic-checkpoint'

afterAll(removeTempDirs)

const command = join(__dirname, '..', '..', 'dist', 'cli', 'main.js')
const caption = ['caption', '-m', 'demo', '-n', '4']
const windows = process.platform === 'win32'

function paligemma(args: string[], options: Pick<SpawnSyncOptions, 'input' | 'cwd' | 'uid' | 'gid'> = {}) {
  return spawnSync(process.execPath, [command, ...args], { encoding: 'utf8', ...options })
}

/** Through bash, where "paligemma" is the command. */
function shell(script: string, cwd: string) {
  const text = script.replaceAll('paligemma ', `"${process.execPath}" "${command}" `)
  return spawnSync('bash', ['-c', text], { encoding: 'utf8', cwd })
}

describe('many pictures', () => {
  let dir: string
  beforeAll(() => {
    dir = tempDir()
    mkdirSync(join(dir, 'pics'))
    for (const name of ['a.png', 'b.png']) copyFileSync(demoImage, join(dir, 'pics', name))
    writeFileSync(join(dir, 'pics', 'c.png'), 'no picture')
  })

  it('of a folder give a line each and a summary; a broken one fails alone', () => {
    const { stdout, stderr, status } = paligemma([...caption, 'pics'], { cwd: dir })
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(lines.map(({ image }) => image)).toEqual(['a', 'b', 'c'].map((name) => join('pics', `${name}.png`)))
    expect(lines[2].error.code).toBe('ERR_IMAGE_INVALID')
    expect(status).toBe(1)
    expect(stderr).toMatch(/^3 pictures: 2 ok, 1 failed, [\d.]+ pictures\/s$/m)
  })

  it('come from standard input: bytes, and lists', () => {
    const one = paligemma([...caption, '-'], { input: readFileSync(demoImage) })
    expect(one.stderr).toBe('')
    expect(JSON.parse(one.stdout)).toMatchObject({ image: '-', text: expect.any(String) })
    const list = paligemma([...caption, '--files-from', '-'], { cwd: dir, input: 'pics/a.png\0pics/b.png\0' })
    expect(list.stdout.trim().split('\n')).toHaveLength(2)
    const run = paligemma(['run', '-m', 'demo', '-n', '4', '-i', '-', '-p', 'ocr'], { input: readFileSync(demoImage) })
    expect(run).toMatchObject({ status: 0, stderr: '' })
  })

  it('are drawn into a folder, sources untouched', () => {
    const args = ['detect', '-m', 'demo', '-l', 'purple ring', 'pics/a.png', 'pics/b.png', '--annotate', 'pics']
    expect(paligemma(args, { cwd: dir }).status).toBe(0)
    expect(readdirSync(join(dir, 'pics')).sort()).toEqual(['a-2.png', 'a.png', 'b-2.png', 'b.png', 'c.png'])
    expect(readFileSync(join(dir, 'pics', 'a.png')).equals(readFileSync(demoImage))).toBe(true)
  })

  it.skipIf(!existsSync('/dev/full'))('a full standard output is one line and code 1', () => {
    const { stderr, stdout } = shell(`paligemma ${caption.join(' ')} pics >/dev/full; echo $?`, dir)
    expect(stdout).toBe('1\n')
    expect(stderr.split('\n').filter((line) => line.startsWith('ERR_'))).toEqual([
      expect.stringMatching(/^ERR_DISK_FULL: standard output/)
    ])
    for (const args of ['--help', 'inspect demo'])
      expect(shell(`paligemma ${args} >/dev/full; echo $?`, dir)).toMatchObject({
        stdout: '1\n',
        stderr: expect.stringMatching(/^ERR_DISK_FULL: [^\n]*\n$/)
      })
  })

  it.skipIf(windows)('a reader that leaves ends the run quietly, one of stderr does not', () => {
    const left = shell(`paligemma ${caption.join(' ')} pics/a.png pics/b.png pics/a.png 2>err | true; cat err`, dir)
    expect(left.stdout).not.toMatch(/ERR_|Error/)
    const batch = shell(
      `{ paligemma ${caption.join(' ')} pics/c.png pics/a.png pics/b.png; echo $? >&3; } 3>code 2> >(true) >out; cat ` +
        'out code',
      dir
    )
    const lines = batch.stdout.trim().split('\n')
    expect(lines).toHaveLength(4)
    expect(lines[3]).toBe('1')
  })
})

describe('serve', () => {
  it.skipIf(windows || !existsSync('/dev/full'))('goes on where nobody takes its first line', async () => {
    for (const stdout of [openSync('/dev/full', 'w'), 'pipe'] as const) {
      const port = 20_000 + Math.floor(Math.random() * 20_000)
      const args = ['serve', '-m', 'demo', '--lazy', '--port', String(port)]
      const child = spawn(process.execPath, [command, ...args], { stdio: ['ignore', stdout, 'ignore'] })
      child.stdout?.destroy()
      const ended = new Promise((resolve) => child.once('exit', resolve))
      await vi.waitFor(async () => expect((await fetch(`http://127.0.0.1:${port}/health`)).ok).toBe(true), 20_000)
      await new Promise((resolve) => setTimeout(resolve, 200))
      expect(child.exitCode).toBeNull()
      child.kill('SIGTERM')
      expect(await ended).toBe(0)
    }
  })
})

describe('demo', () => {
  it.skipIf(!hasStrangers)('answers before it fails to write, and names --out', () => {
    const dir = tempDir()
    chmodSync(dir, 0o555)
    const { stdout, stderr, status } = paligemma(['demo'], { cwd: dir, ...strangersProcess })
    expect(stdout).toContain('a purple ring')
    expect(stderr).toMatch(/^ERR_ACCESS_DENIED: .*--out/)
    expect(status).toBe(1)
  })

  it('does the same where the place is a folder, in JSON too', () => {
    const dir = tempDir()
    for (const more of [[], ['--json']]) {
      const { stdout, stderr, status } = paligemma(['demo', '--out', dir, ...more])
      expect(stdout).toContain('a purple ring')
      expect(stderr).toMatch(/^ERR_INVALID_OPTION: .*--out/)
      expect(status).toBe(2)
    }
  })
})

describe.skipIf(windows || !hasGolden)('a signal', () => {
  let source: string
  beforeAll(() => {
    source = join(tempDir(), 'large')
    writeSyntheticCheckpoint(source, golden('hf', 'pg2-tiny'), { vocab: 257216, hidden: 640, ffn: 2560, layers: 2 })
  })

  it.each([
    ['SIGHUP', 129],
    ['SIGINT', 130],
    ['SIGQUIT', 131],
    ['SIGTERM', 143]
  ] as const)(
    '%s during convert and quantize leaves nothing and ends with %i',
    async (signal, code) => {
      const folder = tempDir()
      const child = spawn(process.execPath, [command, 'convert', source, '-o', join(folder, 'x.gguf'), '-t', 'q6_k'], {
        stdio: 'ignore'
      })
      const ended = new Promise((resolve) => child.on('exit', resolve))
      while (readdirSync(folder).length === 0 && child.exitCode === null)
        await new Promise((resolve) => setTimeout(resolve, 10))
      child.kill(signal)
      expect(await ended).toBe(code)
      expect(readdirSync(folder)).toEqual([])
    },
    60_000
  )
})
