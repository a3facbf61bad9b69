/** A progress line on a terminal; silent elsewhere, so that logs and pipes stay clean. */
import { type Context, oneLine } from './context'

const barWidth = 24
const frameMs = 100

export interface Progress {
  /** 0..1; undefined where nobody knows how much there is. */
  update(fraction: number | undefined, note?: string): void
  /** Removes the line. */
  done(): void
}

export function progress(context: Context, label: string): Progress {
  const out = context.stderr
  // A dumb terminal cannot go back to the start of a line.
  if (!out.isTTY || process.env['TERM'] === 'dumb') return { update() {}, done() {} }
  const start = Date.now()
  let last = 0
  let shown = 0
  // What was there before, such as a part of a download, says nothing about speed.
  let first: number | undefined
  // Spaces instead of escape codes clear the line on every terminal.
  const clear = (): void => {
    if (shown > 0) out.write(`\r${' '.repeat(shown)}\r`)
    shown = 0
  }
  return {
    update(share, note = '') {
      const now = Date.now()
      const fraction = share ?? 0
      first ??= fraction
      if (shown > 0 && now - last < frameMs && fraction < 1) return
      last = now
      const elapsed = (now - start) / 1000
      const done = fraction - first
      const rest = done > 0.01 && elapsed > 1 ? `${formatSeconds((elapsed / done) * (1 - fraction))} left ` : ''
      const room = (out.columns || 80) - 1
      const line =
        share === undefined
          ? cut(`${label}: ${oneLine(note)}`, room)
          : fitting(label, share, `${rest}${oneLine(note)}`, room)
      const width = widthOf(line)
      out.write(`\r${line}${' '.repeat(Math.max(0, shown - width))}`)
      shown = width
    },
    done: clear
  }
}

/** As much as there is room for: the share always, then the label, the bar, the rest. */
function fitting(label: string, fraction: number, rest: string, columns: number): string {
  const share = `${String(Math.floor(fraction * 100)).padStart(3)}%`
  const filled = Math.round(fraction * barWidth)
  const bar = `[${'#'.repeat(filled)}${'.'.repeat(barWidth - filled)}]`
  if (label.length + bar.length + share.length + 2 <= columns) return cut(`${label} ${bar} ${share} ${rest}`, columns)
  return cut(share.length + 1 + label.length <= columns ? `${label} ${share}` : share.trim(), columns)
}

/** East Asian characters and emoji take two columns; taking a few too many for such does no harm. */
function widthOf(text: string): number {
  return [...text].reduce((sum, character) => sum + (character.codePointAt(0)! >= 0x1100 ? 2 : 1), 0)
}

function cut(text: string, columns: number): string {
  let width = 0
  let result = ''
  for (const character of text) {
    width += widthOf(character)
    if (width > columns) break
    result += character
  }
  return result
}

function formatSeconds(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  return whole < 60 ? `${whole}s` : `${Math.floor(whole / 60)}m${String(whole % 60).padStart(2, '0')}s`
}
