/**
 * A PaliGemma small enough to make in milliseconds: real layout (docs/gguf.md), random weights, the whole location and
 * segmentation vocabulary. Its words mean nothing; what it is for is shapes, life cycle and error paths.
 */
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export interface TinyModelOptions {
  /** gemma2 where not given. */
  architecture?: 'gemma' | 'gemma2'
  /** Pixels; a multiple of 14. Default 56: 16 image tokens. */
  imageSize?: number
  layers?: number
  hidden?: number
  /** Tokens, default 8192. */
  contextSize?: number
  /** Weights of the same seed are the same on every machine. */
  seed?: number
  /** Adds a random mask decoder of vae-oid's shape (2.6 MB). */
  maskDecoder?: boolean
  /** false: a file with the text part alone. */
  vision?: boolean
  /** Keys to change, or to leave out where undefined. */
  metadata?: Record<string, GgufValue | undefined>
}

type Scalar = 'uint32' | 'int32' | 'float32' | 'bool' | 'string'
export type GgufValue =
  | { type: Scalar; value: number | boolean | string }
  | { arrayOf: Scalar; values: (number | boolean | string)[] }
/** shape: outermost dimension first. */
export interface GgufTensor {
  name: string
  shape: number[]
  data: Float32Array
}

const typeIds: Record<Scalar, number> = { uint32: 4, int32: 5, float32: 6, bool: 7, string: 8 }

function scalarBytes(type: Scalar, value: number | boolean | string): Buffer {
  if (type === 'string') {
    const text = Buffer.from(String(value))
    const bytes = Buffer.alloc(8 + text.length)
    bytes.writeBigUInt64LE(BigInt(text.length))
    text.copy(bytes, 8)
    return bytes
  }
  if (type === 'bool') return Buffer.from([value ? 1 : 0])
  const bytes = Buffer.alloc(4)
  if (type === 'float32') bytes.writeFloatLE(Number(value))
  else if (type === 'int32') bytes.writeInt32LE(Number(value))
  else bytes.writeUInt32LE(Number(value))
  return bytes
}

function u32(value: number): Buffer {
  return scalarBytes('uint32', value)
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

/** A GGUF version 3 file with F32 tensors, aligned to 32 bytes. */
export function ggufBytes(metadata: Record<string, GgufValue>, tensors: GgufTensor[]): Buffer {
  const parts: Buffer[] = [Buffer.from('GGUF'), u32(3), u64(tensors.length), u64(Object.keys(metadata).length)]
  for (const [key, entry] of Object.entries(metadata)) {
    parts.push(scalarBytes('string', key))
    if ('arrayOf' in entry) {
      parts.push(u32(9), u32(typeIds[entry.arrayOf]), u64(entry.values.length))
      for (const value of entry.values) parts.push(scalarBytes(entry.arrayOf, value))
    } else {
      parts.push(u32(typeIds[entry.type]), scalarBytes(entry.type, entry.value))
    }
  }
  const padded = (bytes: number) => Math.ceil(bytes / 32) * 32
  let offset = 0
  for (const { name, shape, data } of tensors) {
    parts.push(scalarBytes('string', name), u32(shape.length))
    for (const size of [...shape].reverse()) parts.push(u64(size))
    parts.push(u32(0), u64(offset))
    offset += padded(data.byteLength)
  }
  const header = parts.reduce((sum, part) => sum + part.length, 0)
  parts.push(Buffer.alloc(padded(header) - header))
  for (const { data } of tensors) {
    parts.push(
      Buffer.from(data.buffer, data.byteOffset, data.byteLength),
      Buffer.alloc(padded(data.byteLength) - data.byteLength)
    )
  }
  return Buffer.concat(parts)
}

/** mulberry32: the same numbers everywhere, 0 <= x < 1. */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let t = state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

interface Piece {
  text: string
  score: number
  type: number
}

/** <pad> <eos> <bos> <unk>, newlines, bytes, ASCII, some words with the merges that lead to them, loc, seg, <image>. */
export function tinyVocabulary(): Piece[] {
  const pieces: Piece[] = []
  const known = new Set<string>()
  const add = (text: string, type: number, score: number) => {
    if (known.has(text)) return
    known.add(text)
    pieces.push({ text, score, type })
  }
  for (const text of ['<pad>', '<eos>', '<bos>']) add(text, 3, 0)
  add('<unk>', 2, 0)
  add('\n', 4, 0)
  add('\n\n', 4, 0)
  for (let byte = 0; byte < 256; byte++) add(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`, 6, 0)
  let rank = 0
  // A merge happens where its result is a piece, best score first: whole words come last, their beginnings before.
  const words = [
    'caption',
    'answer',
    'describe',
    'detect',
    'segment',
    'ocr',
    'en',
    'cat',
    'cow',
    'dog',
    'the',
    'and',
    'red',
    'what',
    'how'
  ]
  for (const start of ['', '▁']) {
    for (const word of words) {
      for (let length = 2; length <= start.length + word.length; length++)
        add((start + word).slice(0, length), 1, -++rank)
    }
  }
  add('▁', 1, -++rank)
  for (let code = 33; code < 127; code++) add(String.fromCharCode(code), 1, -++rank)
  for (let i = 0; i < 1024; i++) add(`<loc${String(i).padStart(4, '0')}>`, 4, 0)
  for (let i = 0; i < 128; i++) add(`<seg${String(i).padStart(3, '0')}>`, 4, 0)
  add('<image>', 3, 0)
  return pieces
}

/** Shapes of vae-oid's decoder in PyTorch layout. */
export const maskDecoderShapes: Record<string, number[]> = {
  '_vq_vae._embedding': [128, 512],
  'decoder.0.weight': [128, 512, 1, 1],
  'decoder.0.bias': [128],
  ...Object.fromEntries(
    [2, 3].flatMap((block) =>
      [
        [0, 3],
        [2, 3],
        [4, 1]
      ].flatMap(([step, size]) => [
        [`decoder.${block}.net.${step}.weight`, [128, 128, size!, size!]],
        [`decoder.${block}.net.${step}.bias`, [128]]
      ])
    )
  ),
  ...Object.fromEntries(
    [
      [4, 128, 128],
      [6, 128, 64],
      [8, 64, 32],
      [10, 32, 16]
    ].flatMap(([layer, input, output]) => [
      [`decoder.${layer}.weight`, [input!, output!, 4, 4]],
      [`decoder.${layer}.bias`, [output!]]
    ])
  ),
  'decoder.12.weight': [1, 16, 1, 1],
  'decoder.12.bias': [1]
}

/** What the file holds, for tests that need the numbers or want to spoil some. */
export function tinyModel(options: TinyModelOptions = {}): {
  metadata: Record<string, GgufValue>
  tensors: GgufTensor[]
} {
  const {
    architecture = 'gemma2',
    imageSize = 56,
    layers = 2,
    hidden = 64,
    contextSize = 8192,
    seed = 1,
    maskDecoder = false,
    vision = true
  } = options
  const heads = 4
  const kvHeads = architecture === 'gemma2' ? 2 : 1
  const headDim = 32
  const ffn = 2 * hidden
  const visionHidden = 64
  const visionFfn = 128
  const patch = 14
  const imageTokens = (imageSize / patch) ** 2
  const vocabulary = tinyVocabulary()
  const id = (text: string) => vocabulary.findIndex((piece) => piece.text === text)

  const number = (value: number): GgufValue => ({ type: 'uint32', value })
  const real = (value: number): GgufValue => ({ type: 'float32', value })
  const flag = (value: boolean): GgufValue => ({ type: 'bool', value })
  const text = (value: string): GgufValue => ({ type: 'string', value })
  const metadata: Record<string, GgufValue> = {
    'general.architecture': text(architecture),
    'general.name': text('tiny'),
    'general.file_type': number(0),
    [`${architecture}.context_length`]: number(contextSize),
    [`${architecture}.embedding_length`]: number(hidden),
    [`${architecture}.block_count`]: number(layers),
    [`${architecture}.feed_forward_length`]: number(ffn),
    [`${architecture}.attention.head_count`]: number(heads),
    [`${architecture}.attention.head_count_kv`]: number(kvHeads),
    [`${architecture}.attention.key_length`]: number(headDim),
    [`${architecture}.attention.value_length`]: number(headDim),
    [`${architecture}.attention.layer_norm_rms_epsilon`]: real(1e-6),
    ...(architecture === 'gemma2' && {
      'gemma2.attn_logit_softcapping': real(50),
      'gemma2.final_logit_softcapping': real(30),
      'gemma2.attention.sliding_window': number(4096)
    }),
    ...(vision && {
      'clip.has_vision_encoder': flag(true),
      'clip.projector_type': text('paligemma'),
      'clip.use_gelu': flag(true),
      'clip.vision.image_size': number(imageSize),
      'clip.vision.patch_size': number(patch),
      'clip.vision.embedding_length': number(visionHidden),
      'clip.vision.feed_forward_length': number(visionFfn),
      'clip.vision.block_count': number(layers),
      'clip.vision.projection_dim': number(hidden),
      'clip.vision.attention.head_count': number(4),
      'clip.vision.attention.layer_norm_epsilon': real(1e-6),
      'clip.vision.image_mean': { arrayOf: 'float32' as const, values: [0.5, 0.5, 0.5] },
      'clip.vision.image_std': { arrayOf: 'float32' as const, values: [0.5, 0.5, 0.5] },
      'paligemma.image.resize': text('bicubic')
    }),
    'tokenizer.ggml.model': text('llama'),
    'tokenizer.ggml.tokens': { arrayOf: 'string', values: vocabulary.map((piece) => piece.text) },
    'tokenizer.ggml.scores': { arrayOf: 'float32', values: vocabulary.map((piece) => piece.score) },
    'tokenizer.ggml.token_type': { arrayOf: 'int32', values: vocabulary.map((piece) => piece.type) },
    'tokenizer.ggml.bos_token_id': number(id('<bos>')),
    'tokenizer.ggml.eos_token_id': number(id('<eos>')),
    'tokenizer.ggml.unknown_token_id': number(id('<unk>')),
    'tokenizer.ggml.padding_token_id': number(id('<pad>')),
    'tokenizer.ggml.add_bos_token': flag(false),
    'tokenizer.ggml.add_eos_token': flag(false),
    'tokenizer.ggml.add_space_prefix': flag(false)
  }
  for (const [key, value] of Object.entries(options.metadata ?? {})) {
    if (value) metadata[key] = value
    else delete metadata[key]
  }

  const random = randomNumbers(seed)
  const tensors: GgufTensor[] = []
  // Uniform with the variance of 1 / inputs, so that activations keep their size; around `centre` for norms.
  const add = (name: string, shape: number[], spread: number, centre = 0) => {
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1))
    for (let i = 0; i < data.length; i++) data[i] = centre + spread * (2 * random() - 1)
    tensors.push({ name, shape, data })
  }
  const matrix = (name: string, rows: number, cols: number) => add(name, [rows, cols], Math.sqrt(3 / cols))
  const withBias = (name: string, rows: number, cols: number) => {
    matrix(`${name}.weight`, rows, cols)
    add(`${name}.bias`, [rows], 0.02)
  }
  const layerNorm = (name: string) => {
    add(`${name}.weight`, [visionHidden], 0.1, 1)
    add(`${name}.bias`, [visionHidden], 0.02)
  }

  matrix('token_embd.weight', vocabulary.length, hidden)
  add('output_norm.weight', [hidden], 0.1, 1)
  for (let n = 0; n < layers; n++) {
    add(`blk.${n}.attn_norm.weight`, [hidden], 0.1, 1)
    add(`blk.${n}.ffn_norm.weight`, [hidden], 0.1, 1)
    if (architecture === 'gemma2') {
      add(`blk.${n}.post_attention_norm.weight`, [hidden], 0.1, 1)
      add(`blk.${n}.post_ffw_norm.weight`, [hidden], 0.1, 1)
    }
    matrix(`blk.${n}.attn_q.weight`, heads * headDim, hidden)
    matrix(`blk.${n}.attn_k.weight`, kvHeads * headDim, hidden)
    matrix(`blk.${n}.attn_v.weight`, kvHeads * headDim, hidden)
    matrix(`blk.${n}.attn_output.weight`, hidden, heads * headDim)
    matrix(`blk.${n}.ffn_gate.weight`, ffn, hidden)
    matrix(`blk.${n}.ffn_up.weight`, ffn, hidden)
    matrix(`blk.${n}.ffn_down.weight`, hidden, ffn)
  }
  if (vision) {
    add('v.patch_embd.weight', [visionHidden, 3, patch, patch], Math.sqrt(1 / (patch * patch)))
    add('v.patch_embd.bias', [visionHidden], 0.02)
    add('v.position_embd.weight', [imageTokens, visionHidden], 0.1)
    for (let n = 0; n < layers; n++) {
      layerNorm(`v.blk.${n}.ln1`)
      for (const part of ['attn_q', 'attn_k', 'attn_v', 'attn_out'])
        withBias(`v.blk.${n}.${part}`, visionHidden, visionHidden)
      layerNorm(`v.blk.${n}.ln2`)
      withBias(`v.blk.${n}.ffn_up`, visionFfn, visionHidden)
      withBias(`v.blk.${n}.ffn_down`, visionHidden, visionFfn)
    }
    layerNorm('v.post_ln')
    withBias('mm.0', hidden, visionHidden)
  }
  if (maskDecoder) {
    for (const [name, shape] of Object.entries(maskDecoderShapes)) {
      add(`mask.${name}`, shape, shape.length > 1 ? Math.sqrt(3 / shape.slice(1).reduce((a, b) => a * b, 1)) : 0.02)
    }
  }
  return { metadata, tensors }
}

/** Writes the model to a new file in a temporary folder and returns its path. */
export function writeTinyModel(options: TinyModelOptions = {}): string {
  const { metadata, tensors } = tinyModel(options)
  const path = join(mkdtempSync(join(tmpdir(), 'paligemma-tiny-')), 'tiny.gguf')
  writeFileSync(path, ggufBytes(metadata, tensors))
  return path
}
