/** The text of a picture out of the texts of its overlapping tiles. Pure. */
import { editDistance } from '../base/edit-distance'

/** How many words two neighbours may both have read. */
const mostShared = 60
/** Words count as the same when no more than this share of their letters differ. */
const mostDiffering = 0.25

/** `rows[y][x]`: what the tile in that place says. In reading order, each overlap's words once. */
export function joinTexts(rows: readonly (readonly string[])[]): string {
  return rows
    .map((row) => row.map((text) => text.trim()).reduce(beside))
    .reduce((upper, lower) => joinSeam(upper, lower, '\n'), '')
    .trim()
}

/** Texts with as many lines are joined line by line. */
function beside(left: string, right: string): string {
  const lines = left.split('\n')
  const others = right.split('\n')
  if (lines.length !== others.length) return joinSeam(left, right, '\n')
  return lines.map((line, i) => joinSeam(line, others[i]!, ' ')).join('\n')
}

interface Word {
  text: string
  start: number
  end: number
}

/**
 * Two texts, with the words that end the first and begin the second once. Next to a border either may have read half a
 * word (or line), which the other has whole: such a word is left out where what is beside it agrees.
 */
function joinSeam(first: string, second: string, separator: string): string {
  if (first === '' || second === '') return first + second
  const before = words(first)
  const after = words(second)
  let best: { shared: number; cutBefore: number; cutAfter: number } | undefined
  for (const cutBefore of [0, 1]) {
    for (const cutAfter of [0, 1]) {
      const shared = longestShared(before.slice(0, before.length - cutBefore), after.slice(cutAfter))
      if (shared > (best?.shared ?? 0)) best = { shared, cutBefore, cutAfter }
    }
  }
  if (!best) return first + separator + second
  const lastKept = before[before.length - 1 - best.cutBefore]!
  const next = after[best.cutAfter + best.shared]
  if (!next) return first.slice(0, lastKept.end)
  // what stood between the words of the second text stays
  const gap = second.slice(after[best.cutAfter + best.shared - 1]!.end, next.start)
  return first.slice(0, lastKept.end) + gap + second.slice(next.start)
}

function words(text: string): Word[] {
  return Array.from(text.matchAll(/\S+/g), (match) => ({
    text: match[0].toLowerCase(),
    start: match.index,
    end: match.index + match[0].length
  }))
}

function longestShared(before: Word[], after: Word[]): number {
  for (let shared = Math.min(before.length, after.length, mostShared); shared > 0; shared--) {
    const from = before.length - shared
    const alike = after.slice(0, shared).every((word, i) => similar(before[from + i]!.text, word.text))
    if (alike) return shared
  }
  return 0
}

function similar(a: string, b: string): boolean {
  return a === b || editDistance(a, b) <= mostDiffering * Math.min(a.length, b.length)
}
