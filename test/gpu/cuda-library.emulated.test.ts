/**
 * CUDA from loadModel() down to NVIDIA's library, which libfake_cuda.so plays with our kernels on the CPU; it holds our
 * PTX to what the host passes. And every bad day: an explicit device says what is wrong, 'auto' takes the CPU and says
 * so. Where PTX was built, which takes nvcc (npm run build:ptx); the C++ tests run the same without.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { demoImage, listDevices, loadModel, type LoadOptions, type PaliGemma } from '../../lib/index'
import { removeTempDirs } from '../support/convert-helpers'
import { writeTinyModel } from '../support/tiny-model'

const library = join(dirname(process.env.PALIGEMMA_NATIVE ?? '.'), 'libfake_cuda.so')
const hasKernels = existsSync(join(__dirname, '..', '..', 'prebuilds', 'cuda', 'kernels.br'))
const folder = mkdtempSync(join(tmpdir(), 'paligemma-cuda-'))
const log = join(folder, 'log')
const loaded: PaliGemma[] = []
let model = ''

beforeAll(() => {
  model = writeTinyModel()
  process.env.PALIGEMMA_CUDA_LIBRARY = library
  process.env.FAKE_CUDA_LOG = log
})
afterEach(async () => {
  for (const one of loaded.splice(0)) await one.dispose()
  delete process.env.FAKE_CUDA
  delete process.env.CUDA_VISIBLE_DEVICES
  process.env.PALIGEMMA_CUDA_LIBRARY = library
})
afterAll(() => {
  removeTempDirs()
  rmSync(folder, { recursive: true, force: true })
})

async function load(options: Partial<LoadOptions> = {}): Promise<PaliGemma> {
  const one = await loadModel({ model, threads: 1, ...options })
  loaded.push(one)
  return one
}
const picture = { data: new Uint8Array(56 * 56 * 3).fill(90), width: 56, height: 56, channels: 3 as const }
const request = { image: picture, prompt: 'a', maxTokens: 6, ignoreEos: true, logProbs: true as const }

/** What an explicit device says must be the note of 'auto', which computes on the CPU. */
async function expectRefusal(code: string, message: RegExp, device: LoadOptions['device'] = 'cuda'): Promise<void> {
  await expect(load({ device })).rejects.toMatchObject({ code, message: expect.stringMatching(message) as string })
  const { info } = await load({ device: 'auto' })
  expect(info.device).toBe('cpu')
  expect(info.deviceNote).toMatch(message)
}

describe.skipIf(!hasKernels)("CUDA over a library that plays NVIDIA's", () => {
  // these first: once the library has been started, it is kept
  it("is not even loaded for device 'cpu'", async () => {
    const cpu = await load({ device: 'cpu' })
    expect((await cpu.generate(request)).tokens).toHaveLength(6)
    await expect(load({ device: 'metal' })).rejects.toMatchObject({
      code: 'ERR_DEVICE_UNAVAILABLE',
      message: expect.stringContaining('Metal exists on macOS only') as string
    })
    expect(existsSync(log)).toBe(false)
  })

  it('says that there is no driver', async () => {
    process.env.PALIGEMMA_CUDA_LIBRARY = join(folder, 'libcuda.so.1')
    await expectRefusal(
      'ERR_DEVICE_UNAVAILABLE',
      /no NVIDIA driver: .*libcuda\.so\.1 was not found\. Install .*--gpus all/
    )
    const { devices, problem } = await listDevices()
    expect(devices.map(({ device }) => device)).not.toContain('cuda:0')
    expect(problem).toMatch(/no NVIDIA driver/)
  })

  it('says that the driver is too old, by what it lacks', async () => {
    process.env.PALIGEMMA_CUDA_LIBRARY = 'libm.so.6'
    await expectRefusal('ERR_DEVICE_UNAVAILABLE', /driver is too old: it has no cu\w+\. Install one for CUDA 11\.0/)
  })

  it.each([
    ['version=10020', {}, /driver is too old: it knows CUDA 10\.2\. Install one for CUDA 11\.0/],
    ['init=100', {}, /driver does not start: .*\(100\).*Is there a GPU/],
    ['init=803', {}, /driver does not start: .*\(803\).*Restarting/],
    ['', { CUDA_VISIBLE_DEVICES: '' }, /shows no GPU: CUDA_VISIBLE_DEVICES is ""/],
    ['', { CUDA_VISIBLE_DEVICES: '-1' }, /shows no GPU: CUDA_VISIBLE_DEVICES is "-1"/]
  ])('does not start with %j %j', async (settings, env, message) => {
    process.env.FAKE_CUDA = settings
    Object.assign(process.env, env)
    await expectRefusal('ERR_DEVICE_UNAVAILABLE', message)
  })

  it.each([
    ['devices=0', 'cuda', 'ERR_DEVICE_UNAVAILABLE', /shows no GPU/],
    ['major=7 minor=0', 'cuda', 'ERR_DEVICE_UNAVAILABLE', /compute capability 7\.0; 7\.5 or newer is needed/],
    ['module=222', 'cuda', 'ERR_DEVICE_UNAVAILABLE', /does not take our kernel \w+: .*line 3.*\n.*newer NVIDIA driver/],
    ['retain=46', 'cuda', 'ERR_DEVICE_UNAVAILABLE', /Fake Card cannot be used: .*\(46\)/],
    ['memory=1048576', 'cuda', 'ERR_OUT_OF_MEMORY', /about \d+ MiB are needed .* and 1 MiB are free/]
  ] as const)('refuses a card of %j', async (settings, device, code, message) => {
    process.env.FAKE_CUDA = settings
    await expectRefusal(code, message, device)
  })

  it('counts cards as listDevices() does', async () => {
    process.env.FAKE_CUDA = 'devices=2'
    const { devices, problem } = await listDevices()
    expect(problem).toBeUndefined()
    expect(devices.filter(({ device }) => device.startsWith('cuda:'))).toMatchObject([
      { device: 'cuda:0', name: 'Fake Card' },
      { device: 'cuda:1', name: 'Other Card' }
    ])
    expect((await load({ device: 'cuda:1' })).info).toMatchObject({ device: 'cuda', isa: 'Other Card', threads: 0 })
    await expect(load({ device: 'cuda:2' })).rejects.toMatchObject({
      code: 'ERR_DEVICE_UNAVAILABLE',
      message: expect.stringMatching(/"cuda:2" is not there\. There is "cuda:0" \(Fake Card\), "cuda:1"/) as string
    })
  })

  it("is what 'auto' takes, and gives the bits that the emulator gives", async () => {
    process.env.FAKE_CUDA = 'devices=1'
    const [gpu, emulated, cpu] = [await load(), await load({ device: 'cuda-emulated' }), await load({ device: 'cpu' })]
    expect(gpu.info).toMatchObject({ device: 'cuda', isa: 'Fake Card' })
    expect(gpu.info).not.toHaveProperty('deviceNote')
    const [a, b, c] = await Promise.all([gpu, emulated, cpu].map(async (one) => await one.generate(request)))
    expect(a!.tokens).toEqual(b!.tokens)
    expect(a!.text).toBe(c!.text)
    expect(readFileSync(log, 'utf8')).toBe('loaded\n')
  })

  it('writes what the CPU writes about the demo, of quantized weights', async () => {
    process.env.FAKE_CUDA = 'devices=1'
    const [gpu, cpu] = [await load({ model: 'demo', device: 'cuda' }), await load({ model: 'demo', device: 'cpu' })]
    const [a, b] = await Promise.all([gpu, cpu].map(async (one) => await one.caption(demoImage)))
    expect(a).toEqual(b)
  })

  it('holds two models at a time', async () => {
    process.env.FAKE_CUDA = 'devices=1'
    const two = [await load({ device: 'cuda' }), await load({ device: 'cuda', maxSequences: 2 })]
    const alone = await two[0]!.generate(request)
    const together = await Promise.all([...two, ...two].map(async (one) => await one.generate(request)))
    for (const { tokens } of together) expect(tokens).toEqual(alone.tokens)
  })

  it.each([150, 400, 700])(
    'that is lost %d launches after the start ends requests, and a new load works',
    async (n) => {
      process.env.FAKE_CUDA = 'devices=1'
      const before = await (await load({ device: 'cuda' })).generate(request)
      process.env.FAKE_CUDA = `devices=1 lostAfter=${n}`
      const lost = load({ device: 'cuda' }).then(async (one) => {
        const endless = { ...request, maxTokens: 5000 }
        await Promise.all([one.generate(endless), one.generate({ ...endless, prompt: 'b' })])
      })
      await expect(lost).rejects.toMatchObject({ code: 'ERR_DEVICE_LOST' })
      process.env.FAKE_CUDA = 'devices=1'
      expect((await (await load({ device: 'cuda' })).generate(request)).tokens).toEqual(before.tokens)
    }
  )
})
