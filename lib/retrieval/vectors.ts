/** Multi-vector retrieval as ColPali does it: the vectors of pages and queries, and smaller forms of them. */
import { compactInJson } from '../base/compact-json'
import { PaliGemmaError } from '../base/errors'
import type { PlainBytes, PlainFloats, PlainInts } from '../base/plain-memory'
import { isFloat32Array, isInt8Array, isUint8Array } from '../base/realms'
import type { VectorType } from '../engine/native'
import { takeTransform, type ImageTransform } from '../images/transform'
import { check, readFields, rule, show, take, wrongOption } from '../base/validate'

/** The vectors of a page or a query: one per token, each of length 1. */
export interface MultiVector {
  /** Tells it from the smaller forms; missing means "f32". */
  type?: 'f32' | undefined
  /** [tokens, dims], row-major. */
  data: Float32Array
  /** How many vectors. */
  tokens: number
  /** Values in each: 128 of ColPali. */
  dims: number
  /** Of pages: the first so many tokens are the picture's patches, row by row from the top left corner. */
  imageTokens?: number | undefined
  /** Of pages: where the picture lay in the model's square input. */
  transform?: ImageTransform | undefined
  /** Of queries: what each token stands for, such as "<bos>", "invoice", "<pad>". */
  texts?: string[] | undefined
}

/** The same in a quarter of the memory: a vector is its row of `data` times its scale. */
export interface Int8MultiVector {
  type: 'int8'
  /** [tokens, dims], -127..127. */
  data: Int8Array
  /** [tokens]: the largest magnitude of the row / 127. */
  scales: Float32Array
  /** How many vectors. */
  tokens: number
  /** Values in each. */
  dims: number
}

/** The signs alone, a 32nd of the memory. */
export interface BinaryMultiVector {
  type: 'binary'
  /**
   * [tokens, dims / 8 rounded up]: 1 where a value is > 0, the first value in the highest bit (NumPy's packbits), zeros
   * behind the last.
   */
  data: Uint8Array
  /** How many vectors. */
  tokens: number
  /** Values in each. */
  dims: number
}

export type { VectorType }
/** The vectors of a page in any type: `[tokens, dims]`, row-major. */
export type PageVectors = MultiVector | Int8MultiVector | BinaryMultiVector

/** Whose prompts the checkpoint was trained or published with. */
export type RetrievalFlavour = 'colpali-engine' | 'transformers'

export const typeRule = rule.oneOf('f32', 'int8', 'binary')

/** Bytes of a row of bits. */
const bitBytes = (dims: number): number => Math.ceil(dims / 8)

export const typeOf = (vectors: PageVectors): VectorType => vectors.type ?? 'f32'

const parts = ['type', 'data', 'scales', 'tokens', 'dims', 'imageTokens', 'transform', 'texts']
const textsRule = rule.listOf('strings', rule.text.accepts)
const whole = 'vectors ({ data, tokens, dims })'

/**
 * The vectors with each of their parts read once; what they are made of is not copied. Throws ERR_INVALID_OPTION where
 * the parts do not fit each other; `name` is for the message.
 */
export function takeVectors<T extends PageVectors>(name: string, given: T): T {
  const vectors = readFields(name, given, parts, whole) as unknown as T
  checkRows(name, vectors)
  if (typeOf(vectors) !== 'f32') return vectors
  const { imageTokens, transform, texts } = vectors as MultiVector
  if (imageTokens !== undefined) check(`${name}.imageTokens`, imageTokens, rule.integer(0))
  return {
    ...vectors,
    ...(transform !== undefined && { transform: takeTransform(`${name}.transform`, transform) }),
    ...(texts !== undefined && { texts: take(`${name}.texts`, texts, textsRule) })
  }
}

function checkRows(name: string, vectors: PageVectors): void {
  const { tokens, dims, data } = vectors
  const type = typeOf(vectors)
  check(`${name}.type`, type, typeRule)
  check(`${name}.tokens`, tokens, rule.integer(0))
  check(`${name}.dims`, dims, rule.integer(1, 4096))
  const [wanted, isWanted, row] =
    type === 'f32'
      ? (['Float32Array', isFloat32Array, dims] as const)
      : type === 'int8'
        ? (['Int8Array', isInt8Array, dims] as const)
        : (['Uint8Array', isUint8Array, bitBytes(dims)] as const)
  if (!isWanted(data)) throw wrongOption(`${name}.data`, wanted, data)
  if (data.length !== tokens * row) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected ${tokens} x ${row} values for ${name}.data but received ${data.length}`
    )
  }
  if (vectors.type === 'int8' && (!isFloat32Array(vectors.scales) || vectors.scales.length !== tokens)) {
    throw wrongOption(`${name}.scales`, `Float32Array of ${tokens} values`, vectors.scales)
  }
}

/** What web interfaces take: not in shared memory. */
type OwnInt8 = Int8MultiVector & { data: PlainInts; scales: PlainFloats }
type OwnBinary = BinaryMultiVector & { data: PlainBytes }

/**
 * Vectors in a quarter of the memory: rounded to 127 steps of each vector's largest magnitude.
 * @throws PaliGemmaError ERR_INVALID_OPTION, also where a value is not finite
 */
export function quantizeVectors(vectors: MultiVector, type: 'int8'): OwnInt8
/**
 * Vectors in a 32nd of the memory: the signs of their values.
 * @throws PaliGemmaError ERR_INVALID_OPTION, also where a value is not finite
 */
export function quantizeVectors(vectors: MultiVector, type: 'binary'): OwnBinary
/**
 * Vectors in a type that is known only when it runs.
 * @throws PaliGemmaError ERR_INVALID_OPTION, also where a value is not finite
 */
export function quantizeVectors(vectors: MultiVector, type: 'int8' | 'binary'): OwnInt8 | OwnBinary
export function quantizeVectors(vectors: MultiVector, type: 'int8' | 'binary'): OwnInt8 | OwnBinary {
  const taken = takeVectors('vectors', vectors)
  if (typeOf(taken) !== 'f32')
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected vectors of type "f32" to quantize but received ${show(taken.type)}`
    )
  check('type', type, rule.oneOf('int8', 'binary'))
  return compactInJson(type === 'int8' ? toInt8(taken) : toBinary(taken))
}

const levels = 127

function toInt8({ data, tokens, dims }: MultiVector): OwnInt8 {
  const values = new Int8Array(data.length)
  const scales = new Float32Array(tokens)
  for (let t = 0; t < tokens; t++) {
    let top = 0
    for (let i = t * dims; i < (t + 1) * dims; i++) {
      const size = Math.abs(data[i]!)
      if (!(size <= top)) top = size // NaN too
    }
    if (!Number.isFinite(top)) throw notFinite(t)
    scales[t] = top / levels
    const factor = top > 0 ? levels / top : 0
    for (let i = t * dims; i < (t + 1) * dims; i++) values[i] = Math.round(data[i]! * factor)
  }
  return { type: 'int8', data: values, scales, tokens, dims }
}

function toBinary({ data, tokens, dims }: MultiVector): OwnBinary {
  const bytes = bitBytes(dims)
  const bits = new Uint8Array(tokens * bytes)
  for (let t = 0; t < tokens; t++) {
    for (let k = 0; k < dims; k++) {
      const value = data[t * dims + k]!
      if (!Number.isFinite(value)) throw notFinite(t)
      if (value > 0) bits[t * bytes + (k >> 3)]! |= 0x80 >> (k & 7)
    }
  }
  return { type: 'binary', data: bits, tokens, dims }
}

function notFinite(token: number): PaliGemmaError {
  return new PaliGemmaError(
    'ERR_INVALID_OPTION',
    `Expected finite values for vectors.data but vector ${token} has another`
  )
}

/** A query as pages of this type want it. */
export function queryAs(query: PageVectors, type: VectorType): PageVectors {
  const own = typeOf(query)
  if (own === type) return query
  if (own !== 'f32')
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected a query of type "f32" or "${type}" for pages of type "${type}" but received "${own}"`
    )
  return quantizeVectors(query as MultiVector, type as 'int8' | 'binary')
}

/** The rows as the addon takes them. */
export function nativeRows({ data }: PageVectors): Uint8Array {
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
}
