/** What becomes of a training run whose process is killed, whose disk is full, or whose pictures change. */
import { spawn, spawnSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type FitOptions, loadModel } from '../../lib/index'
import { Safetensors } from '../../lib/formats/safetensors'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { writeTinyModel } from '../support/tiny-model'

const dist = join(__dirname, '..', '..', 'dist', 'index.js')
const steps = 60
const examples = Array.from({ length: 4 }, (_, i) => ({ prompt: `what ${i}`, response: 'abcd'.slice(i) }))
const settings: FitOptions = { steps, batchSize: 1, learningRate: 0.01, rank: 2, targets: ['q_proj', 'down_proj'] }

let path = ''
beforeAll(() => {
  path = writeTinyModel({ seed: 5, vision: false })
})
afterAll(removeTempDirs)

const script = (checkpoint: string, more = ''): string => `
  const { loadModel } = require(${JSON.stringify(dist)})
  ;(async () => {
    const model = await loadModel({ model: ${JSON.stringify(path)}, threads: 1 })
    await model.fit(${JSON.stringify(examples)}, {
      ...${JSON.stringify({ ...settings, checkpoint, checkpointEvery: 1, resume: true })},
      onStep: ({ step }) => process.stdout.write('.')
    })
    ${more}
  })().catch((error) => console.log(error.code, error.message))`

/** Of the checkpoint, whole: every tensor can be read. 0: there is none yet. */
async function stepsDone(folder: string): Promise<number> {
  const source = await Safetensors.openFiles([join(folder, 'checkpoint.safetensors')]).catch(() => undefined)
  if (!source) return 0
  try {
    for (const tensor of source.tensors) await tensor.read(0, Buffer.alloc(tensor.bytes))
    const { step, losses } = JSON.parse(String(source.metadata['paligemma_fit'])) as { step: number; losses: number[] }
    expect(losses).toHaveLength(step)
    return step
  } finally {
    await source.close()
  }
}

describe.skipIf(process.platform === 'win32')('training', () => {
  it('that is killed at any moment goes on from its last step, to the same end', async () => {
    const folder = join(tempDir(), 'run')
    let before = 0
    for (let kill = 0; kill < 6; kill++) {
      const child = spawn(process.execPath, ['-e', script(folder)], { stdio: ['ignore', 'pipe', 'inherit'] })
      const ended = new Promise((resolve) => child.once('exit', resolve))
      // between two steps and inside the writing of checkpoints
      child.stdout.once('data', () => setTimeout(() => child.kill('SIGKILL'), Math.random() * 300))
      await ended
      const done = await stepsDone(folder)
      expect(done).toBeGreaterThanOrEqual(before)
      before = done
    }
    expect(before).toBeGreaterThan(0)
    await using model = await loadModel({ model: path, threads: 2 })
    const whole = await model.fit(examples, settings)
    const resumed = await model.fit(examples, { ...settings, checkpoint: folder, resume: true })
    expect(resumed.losses).toEqual(whole.losses)
    expect(resumed.adapter.tensors).toEqual(whole.adapter.tensors)
  }, 240_000)

  it('on a full disk ends with ERR_DISK_FULL and keeps the checkpoint before', async () => {
    const folder = join(tempDir(), 'run')
    await using model = await loadModel({ model: path, threads: 1 })
    const stop = new AbortController()
    const first = model.fit(examples, {
      ...{ ...settings, checkpoint: folder, checkpointEvery: 1, signal: stop.signal },
      onStep: ({ step }) => {
        if (step === 3) stop.abort(new Error('enough'))
      }
    })
    await expect(first).rejects.toThrow('enough')
    const file = join(folder, 'checkpoint.safetensors')
    const kept = readFileSync(file)
    // a limit of the file size, in KB, stands for a full disk
    const shell = ['-c', 'ulimit -f 8; exec "$0" -e "$1"', process.execPath, script(folder)]
    expect(spawnSync('bash', shell, { encoding: 'utf8' }).stdout).toMatch(
      /ERR_DISK_FULL .*checkpoint\.safetensors: no room/
    )
    expect(readFileSync(file).equals(kept)).toBe(true)
    expect(await stepsDone(folder)).toBe(3)
  }, 60_000)

  it('does not go on with other pictures under the same names', async () => {
    const folder = tempDir()
    const image = join(folder, 'a.ppm')
    const draw = (side: number): void =>
      writeFileSync(image, `P6\n${side} ${side}\n255\n${'\0'.repeat(3 * side * side)}`)
    draw(8)
    await using model = await loadModel({ model: writeTinyModel({ seed: 5 }), threads: 1 })
    const options: FitOptions = { ...settings, steps: 2, checkpoint: join(folder, 'run'), resume: true }
    const data = [{ image, prompt: 'a', response: 'b' }]
    await model.fit(data, options)
    await model.fit(data, options)
    draw(9)
    await expect(model.fit(data, options)).rejects.toThrow(/Expected examples as in the run/)
  }, 60_000)
})
