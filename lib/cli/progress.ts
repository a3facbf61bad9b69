/** A progress line on a terminal; silent elsewhere, so that logs and pipes stay clean. */
import type { Context } from './context'

const barWidth = 24
const frameMs = 100

export interface Progress {
  /** 0..1 */
  update(fraction: number, note?: string): void
  /** Removes the line. */
  done(): void
}

export function progress(context: Context, label: string): Progress {
  const out = context.stderr
  if (!out.isTTY) return { update() {}, done() {} }
  const start = Date.now()
  let last = 0
  let shown = false
  // What was there before, such as a part of a download, says nothing about speed.
  let first: number | undefined
  return {
    update(fraction, note = '') {
      const now = Date.now()
      first ??= fraction
      if (shown && now - last < frameMs && fraction < 1) return
      last = now
      shown = true
      const filled = Math.round(fraction * barWidth)
      const elapsed = (now - start) / 1000
      const done = fraction - first
      const rest = done > 0.01 && elapsed > 1 ? ` ${formatSeconds((elapsed / done) * (1 - fraction))} left` : ''
      const line = `${label} [${'#'.repeat(filled)}${'.'.repeat(barWidth - filled)}] ${String(Math.floor(fraction * 100)).padStart(3)}%${rest} ${note}`
      out.write(`\r\x1b[2K${line.slice(0, Math.max(20, (out.columns ?? 80) - 1))}`)
    },
    done() {
      if (shown) out.write('\r\x1b[2K')
      shown = false
    }
  }
}

function formatSeconds(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  return whole < 60 ? `${whole}s` : `${Math.floor(whole / 60)}m${String(whole % 60).padStart(2, '0')}s`
}
