/** Average normalized Levenshtein similarity (Biten et al. 2019, arXiv:1907.00490), as DocVQA is judged. */
import { editDistance } from '../../base/edit-distance'

const threshold = 0.5

/** 0..1: of the answer that is most alike; 0 where half of it or more is different. Case and spaces do not count. */
export function anls(prediction: string, answers: readonly string[]): number {
  return Math.max(...answers.map((answer) => similarity(tidy(prediction), tidy(answer))))
}

const tidy = (text: string): string => text.toLowerCase().trim().split(/\s+/).join(' ')

function similarity(a: string, b: string): number {
  const longest = Math.max([...a].length, [...b].length)
  if (longest === 0) return 1
  const different = editDistance(a, b, Infinity) / longest
  return different < threshold ? 1 - different : 0
}
