/** Where models run, on a machine without a GPU: what there is, and what is said of what there is not. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { listDevices, loadModel, type LoadOptions } from '../../lib/index'
import { removeTempDirs } from '../support/convert-helpers'
import { writeTinyModel } from '../support/tiny-model'

let model = ''
beforeAll(() => {
  model = writeTinyModel()
})
afterAll(removeTempDirs)

async function infoOn(device: LoadOptions['device']) {
  const loaded = await loadModel({ model, threads: 1, device })
  await loaded.dispose()
  return loaded.info
}

describe('devices', () => {
  it('are listed, the CPU last', async () => {
    const { devices, problem } = await listDevices()
    const { isa } = await infoOn('cpu')
    expect(devices.at(-1)).toEqual({ device: 'cpu', name: isa })
    for (const gpu of devices.slice(0, -1)) {
      expect(gpu.device).toMatch(/^(cuda:\d+|metal)$/)
      expect(gpu.memoryBytes).toBeGreaterThan(0)
    }
    if (devices.length === 1) expect(problem).toMatch(/./)
  })

  it.each(['gpu', 'cuda:', 'cuda:x', 'cuda:-1', 'CUDA', 'cpu:0', '', 7])('named %j are no devices', async (device) => {
    await expect(loadModel({ model, device: device as 'cpu' })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringMatching(/device .*"cuda:1" \(a number of listDevices\(\)\)|for device/) as string
    })
  })

  it.each(['cuda', 'cuda:7', 'cuda-emulated'] as const)('%s says why it is not there', async (device) => {
    const { devices } = await listDevices()
    if (devices.some((entry) => entry.device.startsWith(device))) return
    await expect(infoOn(device)).rejects.toMatchObject({
      code: 'ERR_DEVICE_UNAVAILABLE',
      message: expect.stringMatching(
        /^Device "cuda.*" (is not there|cannot be used)[:.] .*(kernels|driver|cuda:0|emulator)/
      ) as string
    })
  })

  it('are said by info, with why it is not another', async () => {
    const { devices, problem } = await listDevices()
    const { device, deviceNote } = await infoOn('auto')
    if (devices.length > 1) return
    expect(device).toBe('cpu')
    expect(deviceNote).toBe(`No GPU is used: ${problem}`)
    expect(await infoOn('cpu')).not.toHaveProperty('deviceNote')
  })

  it('may be named by PALIGEMMA_DEVICE', async () => {
    process.env.PALIGEMMA_DEVICE = 'cpu'
    try {
      expect(await infoOn('auto')).not.toHaveProperty('deviceNote')
      process.env.PALIGEMMA_DEVICE = 'cuda:99'
      await expect(infoOn(undefined)).rejects.toMatchObject({ code: 'ERR_DEVICE_UNAVAILABLE' })
      expect((await infoOn('cpu')).device).toBe('cpu')
      process.env.PALIGEMMA_DEVICE = 'toaster'
      await expect(infoOn('auto')).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringMatching(/PALIGEMMA_DEVICE.*"toaster"/) as string
      })
    } finally {
      delete process.env.PALIGEMMA_DEVICE
    }
  })
})
