/** Data sets of other tools to the JSON lines that `fit` takes, and back. */
import { stat } from 'node:fs/promises'
import { basename, dirname, extname, join, relative, sep } from 'node:path'
import { publicCall, type Taken } from '../base/call'
import { PaliGemmaError } from '../base/errors'
import { checkOutput } from '../base/output-file'
import { TextOutput } from '../base/text-output'
import { rule, type Rules } from '../base/validate'
import { wholeLines } from '../base/lines'
import { isObject } from '../formats/fields'
import { loadMaskEncoder } from '../output/masks/mask-encoder'
import { dataLines, type DataRow } from '../train/data-file'
import { cocoRows, readJsonFile } from './coco-source'
import { type Form, formProblem, jsonLine, writers } from './sinks'
import { pictureProblem, type Reading, type Rows } from './source'
import { Split } from './split'
import { csvRows, vqaRows } from './table-source'
import { yoloRows } from './yolo-source'

/** Options of {@link convertDataset}. */
export interface DatasetOptions {
  /** JSON lines, CSV, COCO's or VQA's JSON, a data.yaml of the YOLO family or its folder. */
  source: string | URL
  /** The file to write; YOLO: a folder. */
  out: string | URL
  /** Default: by the name and what is in it. */
  from?: 'jsonl' | 'csv' | 'coco' | 'yolo' | 'vqa' | undefined
  /** Default: by the ending of `out`: .jsonl, .csv, .json (COCO), none (YOLO). */
  to?: 'jsonl' | 'csv' | 'coco' | 'yolo' | 'vqa' | undefined
  /** COCO, YOLO: boxes (default), or masks too, which needs `maskEncoder`. */
  task?: 'detect' | 'segment' | undefined
  /** COCO, YOLO: a row for each picture that asks for all that is on it (default), or for each of its labels. */
  per?: 'picture' | 'label' | undefined
  /** Only these labels, in this order; the classes of YOLO, where no file names them. */
  labels?: readonly string[] | undefined
  /** Where relative pictures lie. */
  images?: string | URL | undefined
  /** COCO: keep exact boxes, groups and masks beside the text, for `evaluateModel`; default false. */
  truth?: boolean | undefined
  /** vae-oid.npz, or a GGUF that holds the encoder of masks. */
  maskEncoder?: string | URL | undefined
  /** CSV, VQA: the prompt, with {columns}; default: the column prefix or prompt, else "answer en {question}". */
  prefix?: string | undefined
  /** CSV: the answer, with {columns}. */
  suffix?: string | undefined
  /** CSV, VQA: the picture, such as "COCO_val2014_{image_id:12}.jpg" (filled with zeros to 12 digits). */
  imageName?: string | undefined
  /** VQA: the file of answers, where they are not beside the questions. */
  annotations?: string | URL | undefined
  /** YOLO: which part of data.yaml; default "train". */
  subset?: 'train' | 'val' | 'test' | undefined
  /** This share of the pictures, up to 0.999, goes to `heldOut`; default: all go to `out`. */
  split?: number | undefined
  /** Default: `out` with "val" for "train" in its name, or "-val" behind it; YOLO: in the same folder. */
  heldOut?: string | URL | undefined
  /** Of the split; default 0. */
  seed?: number | undefined
  /** "fail" (default): all are reported, nothing is written; "skip": they are left out. */
  badRows?: 'fail' | 'skip' | undefined
  /** Called for each of the first 1000 wrong rows: file and line, and what is wrong. */
  onBadRow?: ((row: { where: string; problem: string }) => void) | undefined
  /** Called with the number of rows now and then. */
  onRows?: ((rows: number) => void) | undefined
  /** Rejects with the signal's reason. */
  signal?: AbortSignal | undefined
}

/** What {@link convertDataset} wrote. */
export interface DatasetResult {
  /** The file, absolute; of YOLO the folder. */
  out: string
  /** Written to it. */
  rows: number
  /** Different ones among the rows. */
  pictures: number
  /** With `split`: the same of what was held out. */
  heldOut?: { out: string; rows: number; pictures: number }
  /** Rows that were left out. */
  bad: number
}

const forms = ['jsonl', 'csv', 'coco', 'yolo', 'vqa']
const datasetRules: Rules<DatasetOptions> = {
  source: rule.file,
  out: rule.file,
  from: rule.oneOf(...forms),
  to: rule.oneOf(...forms),
  task: rule.oneOf('detect', 'segment'),
  per: rule.oneOf('picture', 'label'),
  labels: rule.listOf('non-empty strings', (v) => typeof v === 'string' && v.trim() !== '', { least: 1 }),
  images: rule.file,
  truth: rule.flag,
  maskEncoder: rule.file,
  prefix: rule.text,
  suffix: rule.text,
  imageName: rule.name,
  annotations: rule.file,
  subset: rule.oneOf('train', 'val', 'test'),
  split: rule.above(0, 0.999),
  heldOut: rule.file,
  seed: rule.integer(0),
  badRows: rule.oneOf('fail', 'skip'),
  onBadRow: rule.callback,
  onRows: rule.callback,
  signal: rule.signal
}

/**
 * Reads a data set in one form and writes it in another, row by row. Nothing is written where a row is wrong, unless
 * `badRows` says to leave it out.
 * @throws PaliGemmaError ERR_INVALID_OPTION that names file and line, ERR_DISK_FULL, ERR_ACCESS_DENIED
 */
export async function convertDataset(options: DatasetOptions): Promise<DatasetResult> {
  return await publicCall<DatasetOptions, DatasetResult>(
    'convertDataset',
    options,
    datasetRules,
    ['source', 'out'],
    convert
  )
}

type Own = Omit<Taken<DatasetOptions>, 'source' | 'out' | 'images' | 'maskEncoder' | 'annotations' | 'heldOut'> &
  Partial<Record<'images' | 'maskEncoder' | 'annotations' | 'heldOut', string>> & { source: string; out: string }

const wrong = (text: string, cause?: unknown): PaliGemmaError =>
  new PaliGemmaError('ERR_INVALID_OPTION', text, cause === undefined ? undefined : { cause })

async function convert(given: Taken<DatasetOptions>): Promise<DatasetResult> {
  const options = given as Own
  const { source, out, split, signal } = options
  const to = options.to ?? formOf(out)
  const heldOut = split === undefined ? undefined : (options.heldOut ?? (to === 'yolo' ? out : besides(out)))
  const read = [source, options.annotations, options.maskEncoder].filter((path) => path !== undefined)
  if (to !== 'yolo')
    for (const path of [out, ...(heldOut === undefined ? [] : [heldOut])]) await checkOutput(path, { sources: read })
  const spool = await Spool.create(out, options.seed ?? 0, dirname(source))
  try {
    const bad = await fill(spool, options, to)
    const chosen = heldOut === undefined ? undefined : spool.split.heldOut(split!)
    const part = async (path: string, subset: 'train' | 'val', takes: (picture: number) => boolean) => {
      const count = { rows: 0, pictures: new Set<number>() }
      const rows = () => spool.rows(takes)
      for (const picture of spool.pictures(takes)) {
        count.rows++
        count.pictures.add(picture)
      }
      await writers[to]({ out: path, subset, labels: options.labels, rows, signal })
      return { out: path, rows: count.rows, pictures: count.pictures.size }
    }
    const rest = heldOut === undefined ? undefined : await part(heldOut, 'val', (picture) => chosen!.has(picture))
    const main = await part(out, 'train', (picture) => !chosen?.has(picture))
    return { ...main, ...(rest && { heldOut: rest }), bad }
  } finally {
    await spool.remove()
  }
}

function formOf(out: string): Form {
  const ending = extname(out).toLowerCase()
  const form = { '.jsonl': 'jsonl', '.ndjson': 'jsonl', '.csv': 'csv', '.json': 'coco', '': 'yolo' }[ending]
  if (form === undefined) throw wrong(`Expected to (jsonl, csv, coco, yolo or vqa) for ${out}, whose ending says none`)
  return form as Form
}

/** train.jsonl: val.jsonl; parts.jsonl: parts-val.jsonl */
function besides(out: string): string {
  const name = basename(out)
  const other = name.replace(/train/i, 'val')
  const ending = extname(name)
  return join(dirname(out), other === name ? `${name.slice(0, name.length - ending.length)}-val${ending}` : other)
}

const mostReported = 1000

/** All rows into the spool; the number of those that were left out. */
async function fill(spool: Spool, options: Own, to: Form): Promise<number> {
  const { badRows = 'fail', onBadRow, onRows } = options
  let bad = 0
  let first = ''
  const report = (where: string, problem: string): void => {
    first ||= `${where}: ${problem}`
    if (++bad <= mostReported) onBadRow?.({ where, problem })
  }
  for await (const { where, row, problem } of await open(options)) {
    const found = problem ?? formProblem(to, row)
    if (found !== undefined) report(where, found)
    else {
      await spool.add(row!)
      if (spool.count % 100 === 0) onRows?.(spool.count)
    }
  }
  await spool.close()
  onRows?.(spool.count)
  if (bad > 0 && badRows === 'fail')
    throw wrong(`${bad} row${bad > 1 ? 's' : ''} cannot be used, nothing was written (badRows: "skip"): ${first}`)
  if (spool.count === 0)
    throw wrong(`${options.source} holds nothing to write${bad > 0 ? `; the first of ${bad} problems: ${first}` : ''}`)
  if (options.split !== undefined && spool.split.count < 2)
    throw wrong(`Expected two pictures or more to split but ${options.source} has ${spool.split.count}`)
  return bad
}

async function open(options: Own): Promise<Rows> {
  const { source, task = 'detect', per = 'picture', truth = false, subset = 'train', maskEncoder } = options
  const info = await stat(source).catch((cause: Error) => {
    throw wrong(`${source} cannot be read: ${cause.message}`, cause)
  })
  const isJson = /\.json$/i.test(source) && (options.from === undefined || ['coco', 'vqa'].includes(options.from))
  const json = isJson ? await readJsonFile(source) : undefined
  const from = options.from ?? (info.isDirectory() ? 'yolo' : sourceForm(source, json))
  if (task === 'segment' && (from === 'coco' || from === 'yolo') && maskEncoder === undefined)
    throw wrong('Expected maskEncoder (vae-oid.npz, which holds it) beside task: "segment"')
  const encoder = maskEncoder === undefined ? undefined : await loadMaskEncoder(maskEncoder)
  const reading: Reading = {
    ...{ ...options, task, per, truth, subset },
    ...(encoder && { encode: async (mask) => await encoder.encode(mask) })
  }
  if (from === 'yolo') return yoloRows(reading)
  if (from === 'csv') return csvRows(reading)
  if (from === 'jsonl') return jsonRows(reading)
  if (!isObject(json)) throw wrong(`${source}: expected a JSON object, as ${from} has it`)
  return from === 'coco' ? cocoRows(reading, json) : vqaRows(reading, json)
}

function sourceForm(source: string, json: unknown): Form {
  if (isObject(json)) return Array.isArray(json['questions']) ? 'vqa' : 'coco'
  const ending = extname(source).toLowerCase()
  if (['.jsonl', '.ndjson'].includes(ending)) return 'jsonl'
  if (['.csv', '.tsv'].includes(ending)) return 'csv'
  if (['.yaml', '.yml'].includes(ending)) return 'yolo'
  throw wrong(`Expected from (jsonl, csv, coco, yolo or vqa) for ${source}, whose ending says none`)
}

async function* jsonRows(reading: Reading): Rows {
  const { source, images, signal } = reading
  const bad: { where: string; problem: string }[] = []
  const note = (line: number, error: PaliGemmaError): void => {
    const where = `${source}:${line}`
    bad.push({ where, problem: error.message.replace(`${where}: `, '') })
  }
  for await (const { line, ...row } of dataLines(source, images, note)) {
    signal.throwIfAborted()
    yield* bad.splice(0)
    const where = `${source}:${line}`
    const problems = await Promise.all(row.images.map(async (image) => await pictureProblem(reading, image)))
    const problem = problems.find((one) => one !== undefined)
    yield problem === undefined ? { where, row } : { where, problem }
  }
  yield* bad
}

/** Rows on their way, on the disk: there may be any number of them. */
class Spool {
  count = 0
  private readonly numbers: number[] = []

  private constructor(
    private readonly text: TextOutput,
    readonly split: Split,
    private readonly folder: string
  ) {}

  static async create(out: string, seed: number, folder: string): Promise<Spool> {
    return new Spool(await TextOutput.create(`${out}.rows`, { option: 'out', shownAs: out }), new Split(seed), folder)
  }

  async add(row: DataRow): Promise<void> {
    const key = row.images.map((image) => relative(this.folder, image).split(sep).join('/')).join('\0')
    this.numbers.push(this.split.add(key === '' ? `\0${row.prompt}` : key))
    this.count++
    await this.text.write(jsonLine(row))
  }

  async close(): Promise<void> {
    await this.text.flush()
    await this.text.file.flush()
  }

  async *rows(takes: (picture: number) => boolean): AsyncGenerator<DataRow> {
    for await (const { text, line } of wholeLines(this.text.file.part)) {
      if (!takes(this.numbers[line - 1]!)) continue
      const { image, images, prefix, suffix, ...rest } = JSON.parse(text) as Record<string, unknown>
      const pictures = (images ?? (image === undefined ? [] : [image])) as string[]
      yield { images: pictures, prompt: prefix as string, response: suffix as string, ...rest }
    }
  }

  *pictures(takes: (picture: number) => boolean): Generator<number> {
    yield* this.numbers.filter(takes)
  }

  async remove(): Promise<void> {
    await this.text.file.discard()
  }
}
