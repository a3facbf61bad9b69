/** Where models run. */
import { nativeCall } from '../../base/errors'
import { isDeviceName } from '../../base/device-name'
import type { Rule } from '../../base/validate'
import { listNativeDevices } from '../../engine/cuda-kernels'
import { native, type NativeDevice } from '../../engine/native'

export const deviceRule: Rule = {
  expected: '"auto" or "cpu" or "cuda" or "cuda:1" (a number of listDevices()) or "metal"',
  accepts: isDeviceName
}

/** One of {@link listDevices}. */
export type DeviceInfo = NativeDevice

/** Of {@link listDevices}. */
export interface DeviceList {
  /** GPUs first, the CPU last; those with a `problem` cannot be used. */
  devices: DeviceInfo[]
  /** Why there is no GPU, where there is none. */
  problem?: string
}

/**
 * The GPUs of this machine and its CPU, by the names that `device` of `loadModel` takes.
 *
 * @throws PaliGemmaError ERR_NATIVE_MISSING
 */
export async function listDevices(): Promise<DeviceList> {
  return await nativeCall(async () => await listNativeDevices(native()))
}
