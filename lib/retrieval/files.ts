/** Vectors of many pages or queries in one .npz, for the command and for NumPy. */
import { PaliGemmaError } from '../base/errors'
import { NpzArchive, type NpzArray } from '../formats/npz'
import { NpzWriter } from '../formats/npz-writer'
import { nativeRows, type PageVectors, type RetrievalFlavour, typeOf, type VectorType } from './vectors'

/** What the array `about` holds as JSON in UTF-8. */
export interface AboutVectors {
  format: 'paligemma-vectors'
  version: 1
  type: VectorType
  dims: number
  flavour: RetrievalFlavour
  /** About so many of a page's vectors became one; 1: not pooled. */
  pool: number
  /** Of the pages or queries: array "0" is the first one's, and so on. */
  names: string[]
}

export interface VectorFile {
  about: AboutVectors
  /** In the order of the names. */
  vectors: PageVectors[]
}

const aboutName = 'about'
const scalesSuffix = '.scales'
const mostAbout = 256 << 20 // bytes; a million long names take half of that
const dtypes = { f32: '<f4', int8: '|i1', binary: '|u1' } as const

/**
 * Arrays "0", "1", ... [tokens, dims] (binary: [tokens, dims / 8 rounded up]), with int8 also "0.scales" [tokens], and
 * `about`, which names them: names of pages may be paths, which entries of archives may not.
 */
export class VectorWriter {
  readonly #names: string[] = []

  private constructor(
    private readonly npz: NpzWriter,
    private readonly about: Omit<AboutVectors, 'format' | 'version' | 'names'>
  ) {}

  static async create(path: string, about: Omit<AboutVectors, 'format' | 'version' | 'names'>): Promise<VectorWriter> {
    return new VectorWriter(await NpzWriter.create(path), about)
  }

  async add(name: string, vectors: PageVectors): Promise<void> {
    const { tokens } = vectors
    const array = String(this.#names.length)
    this.#names.push(name)
    await this.npz.add(
      array,
      dtypes[typeOf(vectors)],
      [tokens, tokens > 0 ? vectors.data.length / tokens : 0],
      nativeRows(vectors)
    )
    if (vectors.type === 'int8') {
      const { buffer, byteOffset, byteLength } = vectors.scales
      await this.npz.add(`${array}${scalesSuffix}`, '<f4', [tokens], new Uint8Array(buffer, byteOffset, byteLength))
    }
  }

  async close(): Promise<void> {
    const about: AboutVectors = { format: 'paligemma-vectors', version: 1, ...this.about, names: this.#names }
    const json = Buffer.from(JSON.stringify(about))
    await this.npz.add(aboutName, '|u1', [json.length], json)
    await this.npz.close()
  }

  async abandon(): Promise<void> {
    await this.npz.abandon()
  }
}

/** @throws PaliGemmaError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID */
export async function readVectors(path: string): Promise<VectorFile> {
  const archive = await NpzArchive.open(path)
  try {
    const about = await readAbout(path, archive.arrays.get(aboutName))
    const file: VectorFile = { about, vectors: [] }
    for (const [n, name] of about.names.entries()) {
      const array = archive.arrays.get(String(n))
      if (!array) throw invalid(path, `array ${n}, of ${name}, is missing`)
      file.vectors.push(await readOne(path, about, array, archive.arrays.get(`${n}${scalesSuffix}`)))
    }
    return file
  } finally {
    await archive.close()
  }
}

const invalid = (path: string, what: string): PaliGemmaError =>
  new PaliGemmaError('ERR_MODEL_INVALID', `${path}: ${what}; make it anew with paligemma embed`)

async function readAbout(path: string, array: NpzArray | undefined): Promise<AboutVectors> {
  let about: Partial<AboutVectors> = {}
  try {
    if (array && array.bytes < mostAbout)
      about = JSON.parse((await array.read()).toString('utf8')) as Partial<AboutVectors>
  } catch {}
  const { format, version, type, dims, flavour, names } = about
  if (format !== 'paligemma-vectors')
    throw invalid(path, 'no file of paligemma embed (there is no array "about" that says so)')
  const fits =
    version === 1 &&
    type !== undefined &&
    Object.hasOwn(dtypes, type) &&
    Number.isInteger(dims) &&
    dims! > 0 &&
    (flavour === 'colpali-engine' || flavour === 'transformers') &&
    Array.isArray(names) &&
    names.every((name) => typeof name === 'string')
  if (!fits) throw invalid(path, `vectors of an unknown kind (${JSON.stringify(about).slice(0, 200)})`)
  return about as AboutVectors
}

async function readOne(
  path: string,
  { type, dims }: AboutVectors,
  array: NpzArray,
  scales: NpzArray | undefined
): Promise<PageVectors> {
  const [tokens = 0, width] = array.shape
  const wanted = type === 'binary' ? Math.ceil(dims / 8) : dims
  if (array.shape.length !== 2 || (tokens > 0 && width !== wanted) || array.dtype !== dtypes[type].slice(1)) {
    throw invalid(
      path,
      `array ${array.name} is [${array.shape.join(', ')}] of ${array.dtype}, not [tokens, ${wanted}] of ` +
        `${dtypes[type].slice(1)}`
    )
  }
  if (type === 'f32') return { data: await array.toFloat32(), tokens, dims }
  const bytes = Uint8Array.from(await array.read())
  if (type === 'binary') return { type, data: bytes, tokens, dims }
  if (!scales || scales.bytes !== tokens * 4)
    throw invalid(path, `array ${array.name}${scalesSuffix} is missing or not of ${tokens} values`)
  return { type, data: new Int8Array(bytes.buffer), scales: await scales.toFloat32(), tokens, dims }
}
