/** The self-test: all is well here, and what is wrong is named. */
import { closeSync, copyFileSync, openSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { sha256Of } from '../../lib/base/checksum'
import { demoModel } from '../../lib/base/package-files'
import { execute } from '../../lib/cli/program'
import { native } from '../../lib/engine/native'
import { inspectModel, listDevices, verifyModel } from '../../lib/index'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

afterAll(removeTempDirs)

async function command(...args: string[]) {
  let stdout = ''
  let stderr = ''
  const context = {
    stdout: { write: (text: string) => (stdout += text) },
    stderr: { write: (text: string) => (stderr += text) },
    signal: new AbortController().signal
  }
  return { status: await execute(args, context), stdout, stderr }
}

/** The demo with two bytes written over the start of a tensor: of a Q8_0 block, its scale. */
async function damaged(name: string, value: number): Promise<string> {
  const path = join(tempDir(), 'damaged.gguf')
  copyFileSync(demoModel, path)
  const { tensors } = await inspectModel(path)
  const file = openSync(path, 'r+')
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16LE(value)
  writeSync(file, bytes, 0, 2, tensors.find((tensor) => tensor.name === name)!.offset)
  closeSync(file)
  return path
}

describe('verify', () => {
  it('finds this machine and the demo well, on every instruction set', async () => {
    const { supported } = native().cpuInfo()
    const seen: string[] = []
    const result = await verifyModel({ threads: 2, onProgress: (_, what) => seen.push(what) })
    expect(result.checks.filter(({ outcome }) => outcome !== 'ok')).toEqual([])
    expect(result).toMatchObject({ ok: true, model: demoModel, supported, threads: 2 })
    const names = result.checks.map(({ name }) => name)
    expect(names).toEqual([
      'memory',
      ...supported.map((isa) => `kernels ${isa}`),
      ...supported.map((isa) => `demo on ${isa}`),
      ...(await listDevices()).devices.flatMap(({ device }) => (device === 'cpu' ? [] : [`demo on ${device}`])),
      'pictures',
      'checksum',
      'weights',
      'answers'
    ])
    expect(seen).toEqual([...names, ''])
  })

  it.each([
    ['NaN', 0x7e00, 'blk.1.ffn_up.weight'],
    ['infinity', 0x7c00, 'v.blk.2.attn_q.weight']
  ])('finds %s in the scale of a block, by its tensor, with exit code 1', async (what, value, tensor) => {
    const path = await damaged(tensor, value)
    const { status, stdout } = await command('verify', path, '--threads', '1')
    expect(status).toBe(1)
    expect(stdout).toMatch(new RegExp(`failed\\s+weights.*${tensor}.*${what}`))
    expect(stdout).toMatch(/skipped checksum/)
    expect(stdout).toMatch(/Something is wrong/)
    const { checks } = JSON.parse((await command('verify', path, '--json')).stdout) as {
      checks: { name: string; outcome: string }[]
    }
    expect(checks.find(({ name }) => name === 'weights')!.outcome).toBe('failed')
  })

  it('does not say that all is well of weights that nobody can judge, and knows a copy of the demo', async () => {
    const other = await command('verify', await damaged('blk.1.ffn_up.weight', 0x3c00), '--threads', '1')
    expect(other.status).toBe(0)
    expect(other.stdout).toMatch(/\nNo check failed; skipped: checksum\.\n$/)
    const copy = join(tempDir(), 'copy.gguf')
    copyFileSync(demoModel, copy)
    expect((await command('verify', copy, '--threads', '1')).stdout).toMatch(/ok +checksum[\s\S]*\nAll is well\.\n$/)
  })

  it("compares a pulled model's files with the checksums of when they were pulled", { tags: ['slow'] }, async () => {
    const folder = tempDir()
    const [path, vision] = [join(folder, 'pulled.gguf'), join(folder, 'vision.gguf')]
    copyFileSync(await damaged('blk.1.ffn_up.weight', 0x3c00), path)
    writeFileSync(vision, 'more of it')
    const sums = { 'pulled.gguf': await sha256Of(path), 'vision.gguf': await sha256Of(vision) }
    const checksum = async (sha256: object) => {
      writeFileSync(join(folder, 'pulled.json'), JSON.stringify({ sha256 }))
      return (await verifyModel({ model: path, threads: 1 })).checks.find(({ name }) => name === 'checksum')
    }
    expect(await checksum(sums)).toMatchObject({
      outcome: 'ok',
      detail: `SHA-256 ${sums['pulled.gguf']}, SHA-256 ${sums['vision.gguf']}, as when it was pulled`
    })
    const other = 'a'.repeat(64)
    expect(await checksum({ ...sums, 'vision.gguf': other })).toMatchObject({
      outcome: 'failed',
      detail: expect.stringMatching(`vision.gguf has SHA-256 .* in place of ${other}: .*--force`) as string
    })
    expect(await checksum({ ...sums, 'part-2.gguf': other })).toMatchObject({
      outcome: 'failed',
      detail: expect.stringContaining('part-2.gguf cannot be read') as string
    })
    expect((await checksum({ '../../secret': other, 'pulled.gguf': 7 }))!.outcome).toBe('skipped')
  })

  it('says what is no model, and ends when it is aborted', async () => {
    await expect(verifyModel({ model: 'nowhere.gguf' })).rejects.toMatchObject({ code: 'ERR_MODEL_NOT_FOUND' })
    await expect(verifyModel({ model: 5 as never })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    const reason = new Error('enough')
    const controller = new AbortController()
    const running = verifyModel({ signal: controller.signal, onProgress: () => controller.abort(reason) })
    await expect(running).rejects.toBe(reason)
    expect((await command('verify', 'nowhere.gguf')).status).toBe(1)
  })
})

describe('checkKernels of the addon', () => {
  it('refuses what this machine has not', async () => {
    await expect(async () => await native().checkKernels('mmx')).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' })
    await expect(async () => await native().checkKernels(1 as never)).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION'
    })
  })
})
