/** Every code of the documentation, provoked. A code that is added without a way to meet it fails here. */
import { importSharp } from '../../lib/images/sharp'
import { appendFileSync, copyFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { type ErrorCode, errorCodes, fromNative } from '../../lib/base/errors'
import { writeFailure } from '../../lib/base/output-file'
import { pull } from '../../lib/hub/pull'
import { dequantizeTensor, loadModel, type LoadOptions } from '../../lib/index'
import { removeTempDirs, tempDir } from '../support/convert-helpers'
import { golden } from '../support/golden'
import { refuse, TestHub } from '../support/hub-server'
import { writeTinyModel } from '../support/tiny-model'

let model = ''
let hub: TestHub
const picture = { data: new Uint8Array(28 * 28 * 3), width: 28, height: 28, channels: 3 as const }

beforeAll(async () => {
  model = writeTinyModel()
  hub = await TestHub.start({
    // looked at before there is a question of room
    'config.json': readFileSync(golden('hf', 'pg1-tiny', 'config.json')),
    'tokenizer.model': Buffer.alloc(10),
    'model.safetensors': Buffer.alloc(1000)
  })
})
afterAll(async () => {
  await hub.stop()
  removeTempDirs()
})

const written = (content: string): string => {
  const path = join(tempDir(), 'model.gguf')
  writeFileSync(path, content)
  return path
}

async function withModel<T>(
  use: (model: Awaited<ReturnType<typeof loadModel>>) => Promise<T>,
  options: Partial<LoadOptions> = {}
): Promise<T> {
  await using loaded = await loadModel({ model, threads: 1, ...options })
  return await use(loaded)
}

const pullFrom = async (status?: number, code?: string, freeBytes?: number) => {
  hub.intercept = (_, response) => {
    if (status === undefined) return false
    refuse(response, status, code)
    return true
  }
  return await pull(
    hub.id,
    { endpoint: hub.url, cacheDir: tempDir() },
    {
      env: { HF_HOME: tempDir() },
      timing: { pauseMs: 1, maxPauseMs: 1, attempts: 2 },
      ...(freeBytes !== undefined && { freeBytes: async () => freeBytes })
    }
  )
}

/**
 * A GGUF of one tensor of 2^40 weights: a sparse file that takes no room on the disk, but whose weights take 4 TB as
 * float32.
 */
function hugeTensor(): string {
  const u32 = (value: number) => Buffer.from(Uint32Array.of(value).buffer)
  const u64 = (value: bigint) => Buffer.from(BigUint64Array.of(value).buffer)
  const header = Buffer.concat([
    Buffer.from('GGUF'),
    u32(3),
    u64(1n),
    u64(0n),
    u64(1n),
    Buffer.from('x'),
    u32(2),
    u64(256n),
    u64(1n << 32n),
    u32(10),
    u64(0n)
  ])
  const path = join(tempDir(), 'huge.gguf')
  writeFileSync(path, header)
  truncateSync(path, Math.ceil(header.length / 32) * 32 + 84 * 2 ** 32)
  return path
}

const provocations: Record<ErrorCode, () => Promise<unknown>> = {
  ERR_MODEL_NOT_FOUND: async () => await loadModel('/nowhere/model.gguf'),
  ERR_MODEL_INVALID: async () => await loadModel(written('GGUF and nothing else')),
  ERR_MODEL_UNSUPPORTED: async () => await withModel(async (loaded) => await loaded.embedText('a query')),
  ERR_IMAGE_INVALID: async () =>
    await withModel(async (loaded) => await loaded.generate({ image: Buffer.from('no picture'), prompt: 'x' })),
  ERR_IMAGE_TOO_LARGE: async () =>
    await withModel(
      async (loaded) =>
        await loaded.generate({ image: { data: new Uint8Array(3), width: 1e6, height: 1e6, channels: 3 }, prompt: 'x' })
    ),
  ERR_PROMPT_TOO_LONG: async () =>
    await withModel(async (loaded) => await loaded.generate({ image: picture, prompt: 'a'.repeat(10_000) })),
  ERR_INVALID_OPTION: async () => await loadModel({ model, threads: -1 }),
  ERR_OUT_OF_MEMORY: async () => await dequantizeTensor(hugeTensor(), 'x'),
  ERR_DEVICE_UNAVAILABLE: async () =>
    await loadModel({ model, device: process.platform === 'darwin' ? 'cuda' : 'metal' }),
  // Nor can one of a GPU, where there is none; the emulated one's are in test/gpu.
  ERR_DEVICE_LOST: async () => {
    throw fromNative(Object.assign(new Error('The GPU was lost: load the model again'), { code: 'ERR_DEVICE_LOST' }))
  },
  ERR_MODEL_CHANGED: async () => {
    const copy = join(tempDir(), 'model.gguf')
    copyFileSync(model, copy)
    return await withModel(
      async (loaded) => {
        appendFileSync(copy, 'more')
        return await loaded.generate({ prompt: 'x' })
      },
      { model: copy }
    )
  },
  ERR_BUSY: async () =>
    await withModel(
      async (loaded) =>
        await Promise.all([1, 2].map(async () => await loaded.generate({ prompt: 'x', maxTokens: 20 }))),
      { maxQueue: 1 }
    ),
  ERR_DEADLINE: async () =>
    await withModel(
      async (loaded) => await loaded.generate({ prompt: 'x', maxTokens: 100_000, ignoreEos: true, deadlineMs: 1 })
    ),
  ERR_OUTPUT_INCOMPLETE: async () =>
    await withModel(
      async (loaded) => await loaded.generateObject({ prompt: 'x', schema: { const: 'a cat' }, maxTokens: 2 })
    ),
  ERR_OUTPUT_INVALID: async () =>
    await withModel(
      async (loaded) =>
        await loaded.generateObject({
          prompt: 'x',
          jsonSchema: { const: 'a cat' },
          schema: { '~standard': { version: 1, vendor: 'test', validate: () => ({ issues: [{ message: 'no dog' }] }) } }
        })
    ),
  ERR_TRAINING_DIVERGED: async () =>
    await withModel(async (loaded) => {
      const examples = [{ prompt: 'x', response: 'y' }]
      const { adapter } = await loaded.fit(examples, { steps: 1 })
      for (const { data } of adapter.tensors.values()) data.fill(1e30)
      return await loaded.fit(examples, { from: adapter, steps: 9 })
    }),
  ERR_DISPOSED: async () => {
    const loaded = await loadModel({ model, threads: 1 })
    await loaded.dispose()
    return await loaded.generate({ prompt: 'x' })
  },
  ERR_DEPENDENCY_MISSING: async () =>
    await importSharp(() => {
      throw new Error('Could not load the "sharp" module')
    }),
  ERR_NATIVE_MISSING: async () => {
    vi.resetModules()
    vi.stubEnv('PALIGEMMA_NATIVE', join(tempDir(), 'paligemma.node'))
    try {
      const fresh = await import('../../lib/index')
      return await fresh.loadModel(model)
    } finally {
      vi.unstubAllEnvs()
      vi.resetModules()
    }
  },
  ERR_ACCESS_DENIED: async () => await pullFrom(403, 'GatedRepo'),
  ERR_DOWNLOAD_FAILED: async () => await pullFrom(503),
  ERR_DISK_FULL: async () => await pullFrom(undefined, undefined, 10),
  // A disk that fails cannot be had to order: what the system says of one.
  ERR_WRITE_FAILED: async () => {
    throw writeFailure(Object.assign(new Error('EIO: i/o error, write'), { code: 'EIO' }), 'model.gguf')
  },
  // Nor can a mistake of ours: what the engine throws without a code of ours is one.
  ERR_INTERNAL: async () => {
    throw fromNative(new Error('unexpected'))
  }
}

/** Where the message must hold more than a reason. */
const messages: Partial<Record<ErrorCode, RegExp>> = {
  ERR_PROMPT_TOO_LONG: /\d+ tokens.*contextSize is \d+/,
  ERR_BUSY: /maxQueue/,
  ERR_TRAINING_DIVERGED: /step \d of 9.*learningRate/,
  ERR_DEADLINE: /deadlineMs = 1/,
  ERR_OUTPUT_INCOMPLETE: /maxTokens/,
  ERR_OUTPUT_INVALID: /no dog/,
  ERR_ACCESS_DENIED: /licence.*HF_TOKEN/s,
  ERR_DISK_FULL: /are free/,
  ERR_NATIVE_MISSING: /npx paligemma build/
}

describe('every error code', () => {
  it('has a provocation, and none is left over', () => {
    expect(Object.keys(provocations).sort()).toEqual([...errorCodes].sort())
  })

  it.each(errorCodes)('%s is what its cause rejects with, with a message', async (code) => {
    // NTFS gives room to what is not written
    if (code === 'ERR_OUT_OF_MEMORY' && process.platform === 'win32') return
    const error = await provocations[code]().then(
      () => undefined,
      (reason: unknown) => reason
    )
    expect(error).toMatchObject({ name: 'PaliGemmaError', code })
    expect((error as Error).message).toMatch(messages[code] ?? /.{20}/)
  })
})
