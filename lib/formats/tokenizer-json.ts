/** tokenizer.json, as newer versions of transformers save it alone: Gemma's BPE as GGUF's vocabulary arrays. */
import { Turns } from '../base/turns'
import type { Fields } from './fields'
import { keysOf } from './long-json'
import { TokenType, type Vocabulary } from './sentencepiece'

const space = '▁'
// More ids than the engine's reader takes are nobody's vocabulary.
const mostTokens = 1 << 24

/** Pieces, ranks and bytes; tokens of `added_tokens` are pieces of their own kind, which the caller sets. */
export async function parseTokenizerJson(json: Fields): Promise<Vocabulary> {
  checkText(json)
  const model = json.object('model')
  if (model.string('type', 'BPE') !== 'BPE') model.unsupported('type', "but Gemma's tokenizer is a BPE")
  for (const name of ['continuing_subword_prefix', 'end_of_word_suffix'])
    if (model.string(name, '') !== '') model.unsupported(name, 'but Gemma marks spaces only')
  if (!model.boolean('byte_fallback', false))
    model.unsupported('byte_fallback', "but Gemma's tokenizer falls back to bytes")
  if (model.boolean('ignore_merges', false)) model.unsupported('ignore_merges', 'but Gemma makes every piece by merges')
  if (model.number('dropout', 0) !== 0) model.unsupported('dropout', 'but tokens must not depend on chance')
  const turns = new Turns()
  const ids = await readPieces(model, turns)
  const vocabulary: Vocabulary = { tokens: [], scores: [], types: [], unkId: 3, imageId: -1 }
  const ranks = await readRanks(model, ids, turns)
  for (const [text, id] of ids) {
    if (turns.due) await turns.next()
    vocabulary.tokens[id] = text
    // A score is only an order: the rank of the first merge that makes the piece. Pieces that none makes come last.
    vocabulary.scores[id] = -(ranks.get(text) ?? ids.size * 2) - 1
    vocabulary.types[id] = /^<0x[0-9A-F]{2}>$/.test(text) ? TokenType.byte : TokenType.normal
  }
  const unknown = ids.get(model.string('unk_token', '<unk>'))
  if (unknown !== undefined) {
    vocabulary.unkId = unknown
    vocabulary.types[unknown] = TokenType.unknown
  }
  nameBytes(vocabulary, ids)
  return vocabulary
}

async function readPieces(model: Fields, turns: Turns): Promise<Map<string, number>> {
  const vocab = model.object('vocab')
  const ids = new Map<string, number>()
  const seen = new Set<number>()
  for (const text of keysOf(vocab.values)) {
    if (turns.due) await turns.next()
    const id = vocab.integer(text, 0, undefined, mostTokens - 1)
    if (seen.has(id)) vocab.fail(text, `an id that no other piece has (${id})`)
    seen.add(id)
    ids.set(text, id)
  }
  if (ids.size === 0) model.fail('vocab', 'pieces and their ids')
  return ids
}

/** Merges in the order of their ranks: "a b", or ["a", "b"] as newer files have them. */
async function readRanks(model: Fields, ids: ReadonlyMap<string, number>, turns: Turns): Promise<Map<string, number>> {
  const merges = model.values['merges']
  if (!Array.isArray(merges)) model.fail('merges', 'a list of pairs')
  const ranks = new Map<string, number>()
  for (const [rank, merge] of (merges as unknown[]).entries()) {
    if (turns.due) await turns.next()
    const pair: unknown[] = typeof merge === 'string' ? merge.split(' ') : Array.isArray(merge) ? merge : []
    const [a, b] = pair
    const piece = `${String(a)}${String(b)}`
    const known = pair.length === 2 && [a, b, piece].every((part) => typeof part === 'string' && ids.has(part))
    if (!known) model.fail('merges', `pairs of pieces that make a piece, all in vocab (merge ${rank} is not)`)
    if (!ranks.has(piece)) ranks.set(piece, rank)
  }
  return ranks
}

/** The tab is spelt as itself here, where SentencePiece has a byte: it is that byte's only piece. */
function nameBytes({ tokens, types }: Vocabulary, ids: ReadonlyMap<string, number>): void {
  for (let byte = 0; byte < 128; byte++) {
    const name = `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`
    const id = ids.get(String.fromCharCode(byte))
    if (ids.has(name) || id === undefined || types[id] !== TokenType.normal) continue
    tokens[id] = name
    types[id] = TokenType.byte
  }
}

/** What is done to a text before and after: spaces become U+2581 and back, bytes are joined, nothing else. */
function checkText(json: Fields): void {
  const before = steps(json, 'normalizer', 'normalizers')
  const split = steps(json, 'pre_tokenizer', 'pretokenizers')
  const after = steps(json, 'decoder', 'decoders')
  const marks = (step: Fields) => isReplace(step, ' ', space) || isMetaspace(step)
  for (const step of before) if (!isReplace(step, ' ', space)) refuse(step, 'leaves text as it is but for spaces')
  if (![...before, ...split].some(marks))
    json.unsupported('normalizer', 'but Gemma\'s tokenizer replaces every space by "▁"')
  for (const step of split) {
    // At spaces, of which the normalizer has left none.
    const { type, invert } = step.values
    const harmless = type === 'Split' && invert !== true && isPattern(step, ' ') && before.some(marks)
    const cuts = !isMetaspace(step) || step.values['split'] !== false
    if (!harmless && cuts) refuse(step, 'cuts a text nowhere but at added tokens')
  }
  const backs = (step: Fields) =>
    isReplace(step, space, ' ') || isMetaspace(step) || ['ByteFallback', 'Fuse'].includes(String(step.values['type']))
  for (const step of after) if (!backs(step)) refuse(step, 'puts spaces back and joins bytes')
}

/** A step by itself, or those of a sequence. */
function steps(json: Fields, name: string, listName: string): Fields[] {
  if (!json.has(name)) return []
  const step = json.object(name)
  if (step.values['type'] !== 'Sequence') return [step]
  return step.objects(listName)
}

function isReplace(step: Fields, from: string, to: string): boolean {
  const { type, content } = step.values
  return type === 'Replace' && content === to && isPattern(step, from)
}

/** The text itself, or the same as a regular expression. */
function isPattern({ values }: Fields, text: string): boolean {
  return [{ String: text }, { Regex: text }].some((form) => JSON.stringify(values['pattern']) === JSON.stringify(form))
}

function isMetaspace({ values }: Fields): boolean {
  const prefix = values['prepend_scheme'] ?? (values['add_prefix_space'] === false ? 'never' : 'always')
  return values['type'] === 'Metaspace' && (values['replacement'] ?? space) === space && prefix === 'never'
}

function refuse(step: Fields, what: string): never {
  step.unsupported('type', `but Gemma's tokenizer ${what}`)
}
