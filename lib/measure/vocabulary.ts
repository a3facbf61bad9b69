/** A vocabulary of Gemma's size and kinds of pieces, whose words mean nothing. */
import { TokenType, type Vocabulary } from '../formats/sentencepiece'

const locations = 1024
const segments = 128
// Embeddings are padded to a multiple of this, as the published ones are.
const rowMultiple = 64

/**
 * Control tokens, runs of newlines, bytes, ASCII and words of two to four letters with and without a space before them
 * up to `base` pieces; then `<loc>`, `<seg>`, `<image>` and padding. A word's beginning is always a piece as well, so
 * merging works as in a real vocabulary.
 */
export function syntheticVocabulary(base: number): Vocabulary {
  const tokens: string[] = []
  const scores: number[] = []
  const types: number[] = []
  const add = (text: string, type: number, score = 0) => {
    tokens.push(text)
    scores.push(score)
    types.push(type)
  }
  for (const text of ['<pad>', '<eos>', '<bos>']) add(text, TokenType.control)
  add('<unk>', TokenType.unknown)
  for (let n = 1; n <= 31; n++) add('\n'.repeat(n), TokenType.userDefined)
  for (let byte = 0; byte < 256; byte++) add(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`, TokenType.byte)
  const normal = (text: string) => add(text, TokenType.normal, -(tokens.length - 290))
  normal('▁')
  for (let code = 33; code < 127; code++) normal(String.fromCharCode(code))
  for (const word of words()) {
    if (tokens.length + 2 > base) break
    normal(word)
    normal(`▁${word}`)
  }
  while (tokens.length < base) add(`<unused${tokens.length}>`, TokenType.unused)
  for (let i = 0; i < locations; i++) add(`<loc${String(i).padStart(4, '0')}>`, TokenType.userDefined)
  for (let i = 0; i < segments; i++) add(`<seg${String(i).padStart(3, '0')}>`, TokenType.userDefined)
  const imageId = tokens.length
  add('<image>', TokenType.control)
  while (tokens.length % rowMultiple !== 0) add(`[PAD${tokens.length}]`, TokenType.unused)
  return { tokens, scores, types, unkId: 3, imageId }
}

const letters = 'etaoinshrdlcumwfgypbvkjxqz'

/** One letter each, then two, three and four. */
function* words(): Generator<string> {
  let shorter = ['']
  for (let length = 1; length <= 4; length++) {
    const longer: string[] = []
    for (const start of shorter) {
      for (const letter of letters) {
        const word = start + letter
        if (length > 1) yield word
        if (length < 4) longer.push(word)
      }
    }
    shorter = longer
  }
}
