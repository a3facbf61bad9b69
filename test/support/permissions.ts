/** Work under permissions, which the superuser, as whom continuous integration runs, does not meet. */
import { chmodSync, statSync } from 'node:fs'

const stranger = 54321

/** Whether {@link asStranger} can be had here. */
export const hasStrangers = ((): boolean => {
  if (process.platform === 'win32') return false
  if (process.getuid!() !== 0) return true
  try {
    process.seteuid!(stranger)
    process.seteuid!(0)
    return true
  } catch {
    return false
  }
})()

/** The work of somebody who may look into this folder, but write into no other's. */
export async function asStranger<T>(folder: string, work: () => Promise<T>): Promise<T> {
  if (process.getuid!() !== 0) return await work()
  chmodSync(folder, statSync(folder).mode | 0o055)
  process.seteuid!(stranger)
  try {
    return await work()
  } finally {
    process.seteuid!(0)
  }
}

/** For `spawn`: a process of the same. */
export const strangersProcess = process.getuid?.() === 0 ? { uid: stranger, gid: stranger } : {}
