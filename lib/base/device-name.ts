/** Names of devices. "cuda-emulated" is of builds for developers alone. */
export type DeviceName = 'auto' | 'cpu' | 'cuda' | `cuda:${number}` | 'metal' | 'cuda-emulated' | 'metal-emulated'

export const isDeviceName = (v: unknown): v is DeviceName =>
  typeof v === 'string' && /^(auto|cpu|(cuda|metal)(-emulated)?|cuda:\d{1,3})$/.test(v)
