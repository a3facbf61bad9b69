/** Who gets the kernels of NVIDIA cards, and who asks for no card at all. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { brotliCompressSync } from 'node:zlib'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { cudaKernels, listNativeDevices } from '../../lib/engine/cuda-kernels'
import type { NativeBinding } from '../../lib/engine/native'

const folder = mkdtempSync(join(tmpdir(), 'cuda-kernels-'))
const file = join(folder, 'kernels.br')
vi.mock('../../lib/engine/locate', async (original) => ({
  ...(await original<object>()),
  cudaKernelFiles: () => [join(folder, 'missing.br'), file]
}))

const text = 'add 75 3\none\0'
beforeAll(() => writeFileSync(file, brotliCompressSync(text)))
afterEach(() => vi.unstubAllEnvs())
afterAll(() => rmSync(folder, { recursive: true }))

function machine(cards: boolean) {
  const binding = {
    hasCudaCards: vi.fn(async () => cards),
    listDevices: vi.fn(async () => ({ devices: [] }))
  }
  return { binding: binding as unknown as NativeBinding, asked: binding.hasCudaCards, listed: binding.listDevices }
}

describe("CUDA's kernels", { tags: ['alone'] }, () => {
  it.skipIf(process.platform === 'darwin').each([undefined, 'auto', 'cuda', 'cuda:1'])(
    'are unpacked for device %s',
    async (device) => {
      const { binding } = machine(true)
      expect(Buffer.from((await cudaKernels(binding, device, undefined))!).toString()).toBe(text)
    }
  )

  it.each([
    ['cpu', undefined],
    ['metal', undefined],
    ['cuda-emulated', undefined],
    [undefined, 'scalar'],
    ['auto', 'avx2']
  ])('are left alone, and no driver is started, for device %s and instruction set %s', async (device, isa) => {
    const { binding, asked } = machine(true)
    expect(await cudaKernels(binding, device, isa)).toBeUndefined()
    expect(asked).not.toHaveBeenCalled()
  })

  it('heed PALIGEMMA_DEVICE as the engine does', async () => {
    vi.stubEnv('PALIGEMMA_DEVICE', 'cpu')
    const { binding, asked } = machine(true)
    expect(await cudaKernels(binding, undefined, undefined)).toBeUndefined()
    expect(asked).not.toHaveBeenCalled()
    if (process.platform !== 'darwin') expect(await cudaKernels(binding, 'cuda', undefined)).toBeDefined()
  })

  it('are not read where there is no card', async () => {
    expect(await cudaKernels(machine(false).binding, 'cuda', undefined)).toBeUndefined()
  })

  it('are told to listDevices, without which cards are of no use', async () => {
    const { binding, listed } = machine(true)
    await listNativeDevices(binding)
    expect(listed).toHaveBeenCalledWith(true)
  })

  it.skipIf(process.platform === 'darwin')('name their file where it is damaged', async () => {
    writeFileSync(file, 'no such thing')
    await expect(cudaKernels(machine(true).binding, 'cuda', undefined)).rejects.toMatchObject({
      code: 'ERR_DEVICE_UNAVAILABLE',
      message: expect.stringContaining(file) as string
    })
    // who leaves the choice to the engine loses a card, not the model
    expect(await cudaKernels(machine(true).binding, 'auto', undefined)).toBeUndefined()
    writeFileSync(file, brotliCompressSync(text))
  })
})
