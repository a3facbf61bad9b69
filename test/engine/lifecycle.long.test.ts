/** Nothing a program does in the middle of work may crash the process: each scenario runs many times in its own one. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { writeTinyModel } from '../support/tiny-model'

const addon = process.env.PALIGEMMA_NATIVE ?? join(__dirname, '..', '..', 'build', 'Release', 'paligemma.node')
let model = ''

interface Outcome {
  code: number | null
  signal: string | null
  stdout: string
  stderr: string
}

function run(scenario: string, argument: string | number = '', flags: string[] = []): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [
      ...flags,
      join(__dirname, '..', 'support', 'lifecycle-child.cjs'),
      addon,
      model,
      scenario,
      String(argument)
    ])
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (data) => {
      stdout += data
    })
    child.stderr.on('data', (data) => {
      stderr += data
    })
    child.on('error', reject)
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }))
  })
}

/** Ended with this code, by itself, without a word of trouble; returns what it reported. */
async function expectClean(
  scenario: string,
  argument: string | number = '',
  flags: string[] = [],
  exitCode = 0
): Promise<Record<string, unknown>> {
  const { code, signal, stdout, stderr } = await run(scenario, argument, flags)
  expect(stderr).not.toMatch(/FATAL|Segmentation|Assertion|DEP0168|Native stack trace/)
  expect({ code, signal, stderr }).toEqual({ code: exitCode, signal: null, stderr: '' })
  return stdout ? (JSON.parse(stdout) as Record<string, unknown>) : {}
}

beforeAll(() => {
  model = writeTinyModel({ maskDecoder: true })
})

describe('workers', () => {
  it('may be terminated while models generate, load, flood the event loop or use tools', async () => {
    expect(await expectClean('terminateWorkers', 60)).toEqual({ codes: [1] })
  })

  it('may call process.exit while a model generates', async () => {
    expect(await expectClean('workersThatExit', 20)).toEqual({ codes: [5] })
  })

  it('may throw, in a timer or in the event handler, while a model generates', async () => {
    expect(await expectClean('workersThatThrow', 20)).toEqual({ messages: ['planned'] })
  })

  it('load the addon and the same model at the same time', async () => {
    expect(await expectClean('workersTogether', 6)).toEqual({ codes: [0, 0, 0, 0, 0, 0] })
  })
})

describe('process.exit', () => {
  it.each(['generating', 'disposing', 'loading', 'tools'])('gives its exit code while %s', async (what) => {
    for (let i = 0; i < 8; i++) await expectClean('exit', what, [], 7)
  })

  it('gives its exit code while workers generate', async () => {
    for (let i = 0; i < 8; i++) await expectClean('exitWithWorkers', '', [], 7)
  })
})

describe('uncaught exceptions', () => {
  it.each(['throwsInMain', 'throwsInMainHandler'])('end the process as always: %s', async (scenario) => {
    for (let i = 0; i < 8; i++) {
      const { code, signal, stderr } = await run(scenario)
      expect({ code, signal }).toEqual({ code: 1, signal: null })
      expect(stderr).toMatch('Error: planned')
      expect(stderr).not.toMatch(/FATAL|Segmentation|Assertion|DEP0168|Native stack trace/)
    }
  })

  it('of the event handler reach `uncaughtException`, and later events still come', async () => {
    expect(await expectClean('catchesHandlerErrors')).toEqual({ caught: true, end: 'end' })
  })
})

describe('dispose', () => {
  it('ends running and queued requests with ERR_DISPOSED, then says `stopped`', async () => {
    expect(await expectClean('dispose', 30)).toEqual({ endings: ['ERR_DISPOSED'] })
  })

  it('works while the model loads', async () => {
    expect(await expectClean('disposeWhileLoading', 40)).toEqual({ done: true })
  })

  it('works from within the event handler', async () => {
    expect(await expectClean('disposeInHandler')).toEqual({ code: 'ERR_DISPOSED' })
  })
})

describe('garbage collection', () => {
  it('leaves a model alone while it works, even if nobody holds it', async () => {
    expect(await expectClean('collectWhileRunning', 10, ['--expose-gc'])).toEqual({ tokens: 640, ends: 10 })
  })

  it('frees idle models that were not disposed', async () => {
    expect(await expectClean('collectIdle', 10, ['--expose-gc'])).toEqual({ left: 0 })
  })

  it('is harmless while tools run', async () => {
    expect(await expectClean('collectTools', 20, ['--expose-gc'])).toEqual({ done: true })
  })
})

describe('models', () => {
  it('that are idle do not keep the process alive', async () => {
    expect(await expectClean('idleModelsLetGo')).toEqual({ ready: true })
  })

  it('of one file give the same tokens side by side, for all concurrent requests', async () => {
    expect(await expectClean('severalModels')).toEqual({ different: 1, lengths: [8] })
  })

  it('end a cancelled request with ERR_ABORTED and go on', async () => {
    expect(await expectClean('cancel', 30)).toEqual({ codes: ['ERR_ABORTED'], after: 'end' })
  })

  it('that fail to load say why and can be disposed or forgotten', async () => {
    expect(await expectClean('failedLoads', 20)).toEqual({ codes: ['ERR_MODEL_INVALID', 'ERR_MODEL_NOT_FOUND'] })
  })
})
