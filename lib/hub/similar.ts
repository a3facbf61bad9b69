/** What a misspelt name may have meant. */

// Google's own; of the many fine-tunes of version 1 nobody types a name by heart.
const published = [
  ...['3b', '10b', '28b'].flatMap((size) =>
    ['pt-224', 'pt-448', 'pt-896', 'mix-224', 'mix-448'].map((rest) => `google/paligemma2-${size}-${rest}`)
  ),
  ...['3b', '10b'].map((size) => `google/paligemma2-${size}-ft-docci-448`),
  ...['pt-224', 'pt-448', 'pt-896', 'mix-224', 'mix-448'].map((rest) => `google/paligemma-3b-${rest}`)
]

/** "google/paligemma-2-3b-mix-224" and "google/PaliGemma2_3B_mix_224" differ in nothing that people keep in mind. */
const plain = (name: string): string => name.toLowerCase().replace(/[^a-z0-9/]/g, '')

/** Letters to add, take out or change. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++)
      next.push(Math.min(next[j - 1]! + 1, row[j]! + 1, row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)))
    row = next
  }
  return row[b.length]!
}

/**
 * Names of `known` (Google's models where it is not given) that were probably meant by `given`, with or without the
 * owner; the nearest ones, at most three; none where the name is one of them. Two letters may be wrong, one of a short
 * name.
 */
export function similarNames(given: string, known: readonly string[] = published): string[] {
  const name = given.replace(/[@:].*$/, '')
  if (name.length > 100 || known.includes(name)) return []
  const wanted = plain(name)
  const near = known
    .map((candidate) => {
      const whole = plain(candidate)
      return { candidate, far: distance(wanted, name.includes('/') ? whole : whole.slice(whole.indexOf('/') + 1)) }
    })
    .filter(({ far }) => far <= Math.min(2, wanted.length / 4))
  const least = Math.min(...near.map(({ far }) => far))
  return near
    .filter(({ far }) => far === least)
    .map(({ candidate }) => candidate)
    .slice(0, 3)
}
