/** How much memory this process has taken. */
import { readFileSync, writeFileSync } from 'node:fs'

/** Forgets earlier peaks where the system can (Linux); elsewhere the peak stays that of the whole process. */
export function resetPeakMemory(): void {
  try {
    writeFileSync('/proc/self/clear_refs', '5')
  } catch {
    // not Linux, or /proc is not writable here
  }
}

/** Largest resident size so far in bytes, mapped model pages included. */
export function peakMemory(): number {
  try {
    // Linux's maxRSS may stem from before this program was started; the status file's does not.
    const match = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync('/proc/self/status', 'latin1'))
    if (match) return Number(match[1]) * 1024
  } catch {
    // not Linux
  }
  return process.resourceUsage().maxRSS * 1024
}
