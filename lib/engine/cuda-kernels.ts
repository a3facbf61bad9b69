/** CUDA's kernels: one packed file for the engines of all platforms, opened where there is a card for them. */
import { readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import { brotliDecompress } from 'node:zlib'
import { PaliGemmaError } from '../base/errors'
import { cudaKernelFiles, isThere } from './locate'
import type { NativeBinding } from './native'

const kernelsFile = (): string | undefined => cudaKernelFiles().find(isThere)

/** @throws PaliGemmaError ERR_NATIVE_MISSING */
export async function listNativeDevices(binding: NativeBinding): ReturnType<NativeBinding['listDevices']> {
  return await binding.listDevices(kernelsFile() !== undefined)
}

/**
 * What a model on this device needs of the file, or undefined: no card is asked for, or none is there.
 *
 * @throws PaliGemmaError ERR_DEVICE_UNAVAILABLE where the file is damaged and a card was asked for by name
 */
export async function cudaKernels(
  binding: NativeBinding,
  device: string | undefined,
  isa: string | undefined
): Promise<Uint8Array | undefined> {
  const path = mayMeanCuda(device, isa) ? kernelsFile() : undefined
  // asked last: it starts NVIDIA's driver
  if (path === undefined || !(await binding.hasCudaCards?.())) return undefined
  try {
    return await promisify(brotliDecompress)(await readFile(path))
  } catch (cause) {
    // whoever leaves the choice to the engine gets the CPU, with a note
    if (!/^cuda/.test(device ?? '')) return undefined
    throw new PaliGemmaError(
      'ERR_DEVICE_UNAVAILABLE',
      `${path}, the kernels for NVIDIA cards, cannot be read: ${(cause as Error).message}. Install the package ` +
        "again, or use device: 'cpu'",
      { cause }
    )
  }
}

function mayMeanCuda(device = 'auto', isa?: string): boolean {
  if (process.platform === 'darwin') return false
  // who names an instruction set means the CPU; else the engine itself reads the variable
  const wanted = device === 'auto' ? (isa ? 'cpu' : process.env['PALIGEMMA_DEVICE'] || device) : device
  return wanted === 'auto' || /^cuda(?::|$)/.test(wanted)
}
