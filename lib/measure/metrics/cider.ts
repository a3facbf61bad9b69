/** CIDEr-D (Vedantam et al. 2015, arXiv:1411.5726): how well captions agree with people's. */

const orders = 4
const sigma = 6

/** Words in lower case, without punctuation; "it's" is two, "don't" too, as in the Penn Treebank. */
export function captionWords(text: string): string[] {
  return text
    .toLowerCase()
    .replace(/[’]/g, "'")
    .replace(/n't\b/g, " n't")
    .replace(/'(s|re|ve|ll|d|m)\b/g, " '$1")
    .split(/[^\p{L}\p{M}\p{N}'-]+/u)
    .filter((word) => /[\p{L}\p{N}]/u.test(word))
}

type Counts = Map<string, number>

/** Of n-grams of 1 to 4 words, each order by itself. */
function countsOf(text: string): Counts[] {
  const words = captionWords(text)
  return Array.from({ length: orders }, (_, n) => {
    const counts: Counts = new Map()
    for (let i = 0; i + n < words.length; i++) {
      const gram = words.slice(i, i + n + 1).join(' ')
      counts.set(gram, (counts.get(gram) ?? 0) + 1)
    }
    return counts
  })
}

interface Vector {
  weights: Counts[]
  norms: number[]
  /** In pairs of words, as the official implementation has it. */
  length: number
}

/** One score a picture, 0..10; their mean is the score of the whole, often given times 100. */
export function ciderScores(captions: readonly { prediction: string; references: readonly string[] }[]): number[] {
  const references = captions.map((caption) => caption.references.map(countsOf))
  const documents: Counts = new Map() // pictures whose references have the n-gram
  for (const list of references)
    for (const gram of new Set(list.flatMap((counts) => counts.flatMap((order) => [...order.keys()]))))
      documents.set(gram, (documents.get(gram) ?? 0) + 1)
  const all = Math.log(captions.length)
  const vectorOf = (counts: Counts[]): Vector => {
    const weights = counts.map((order) => {
      const weighted: Counts = new Map()
      for (const [gram, count] of order) weighted.set(gram, count * (all - Math.log(documents.get(gram) ?? 1)))
      return weighted
    })
    const norms = weights.map((order) => Math.sqrt([...order.values()].reduce((sum, value) => sum + value * value, 0)))
    return { weights, norms, length: [...counts[1]!.values()].reduce((sum, count) => sum + count, 0) }
  }
  return captions.map(({ prediction }, i) => {
    const own = vectorOf(countsOf(prediction))
    const scores = references[i]!.map((counts) => similarity(own, vectorOf(counts)))
    return (10 * scores.reduce((sum, score) => sum + score, 0)) / scores.length
  })
}

function similarity(own: Vector, other: Vector): number {
  const gap = own.length - other.length
  let sum = 0
  for (let n = 0; n < orders; n++) {
    let product = 0
    for (const [gram, weight] of own.weights[n]!) {
      const theirs = other.weights[n]!.get(gram) ?? 0
      product += Math.min(weight, theirs) * theirs
    }
    const norm = own.norms[n]! * other.norms[n]!
    sum += norm > 0 ? product / norm : 0
  }
  return (sum / orders) * Math.exp(-(gap * gap) / (2 * sigma * sigma))
}
