/** `paligemma embed` and `paligemma search`: pages and queries with a ColPali checkpoint. */
import { basename, extname, join } from 'node:path'
import { type Command, Option } from '../vendored'
import type { MultiVector, PageVectors, PaliGemma, RetrievalFlavour, SearchHit, VectorType } from '../../index'
import { checkOutput, makeFolder, writeOutput } from '../../base/output-file'
import type { VectorWriter } from '../../retrieval/files'
import { addLoadOptions, collect, integer, loadOptions } from '../args'
import { filesOfModel } from '../model'
import {
  type Context,
  describeError,
  Interrupted,
  printable,
  printError,
  printJson,
  printLine,
  usageError
} from '../context'
import { addExamples, group } from '../help'
import { addImageOptions, expandImages, type ImageFlags, imagesOf, Pictures } from '../images'
import { Tally } from './task'

/** So many tell every float32 from its neighbours. */
const float32Digits = 9

interface EmbedFlags {
  query?: string[]
  out?: string
  type: VectorType
  pool?: number
  flavour?: RetrievalFlavour
}
interface SearchFlags {
  vectors?: string
  limit: number
  map?: string
  mapToken?: string
  json?: boolean
  flavour?: RetrievalFlavour
}

const flavourOption = (): Option =>
  new Option('--flavour <name>', 'whose prompts (default: what the model file says)').choices([
    'colpali-engine',
    'transformers'
  ])

export function addEmbed(program: Command, context: Context, onFailure: () => void): void {
  const command = program
    .command('embed')
    .summary('vectors of pages and queries (ColPali)')
    .description(
      'Writes the vectors of pictures of pages, or of queries, to an .npz: for each an array [tokens, dims]. Without ' +
        '--out one line of JSON each.'
    )
  addExamples(
    command,
    "embed --model colpali.gguf 'pages/*.png' --out pages.npz",
    "embed --model colpali.gguf --query 'total amount' --type int8 -o query.npz"
  )
  addImageOptions(addLoadOptions(command))
    .optionsGroup(group.task)
    .option('-q, --query <text>', 'a query instead of pages; may be given several times', collect)
    .optionsGroup(group.output)
    .option('-o, --out <file>', 'the .npz to write (default: a line of JSON each)')
    .addOption(new Option('--type <type>', 'how to store vectors').choices(['f32', 'int8', 'binary']).default('f32'))
    .option('--pool <factor>', 'make about so many vectors of a page one (default: 1, off)', integer)
    .addOption(flavourOption())
    .action(async (images: string[], options: Record<string, unknown>) => {
      await embed(images, options, context, onFailure)
    })
}

export function addSearch(program: Command, context: Context, onFailure: () => void): void {
  const command = program
    .command('search')
    .summary('the pages that fit a query (ColPali)')
    .description('Finds the pages that fit a query best, among pictures or among vectors that "paligemma embed" wrote.')
  addExamples(
    command,
    "search --model colpali.gguf 'total amount' 'pages/*.png'",
    "search --model colpali.gguf 'total amount' --vectors pages.npz --limit 3 --json"
  )
  addLoadOptions(command)
    .argument('<query>', 'what to look for')
    .argument('[images...]', 'paths, folders, globs or URLs of pages')
    .optionsGroup(group.task)
    .option('--vectors <file>', 'an .npz of "paligemma embed" instead of images')
    .option('-k, --limit <n>', 'the best so many pages', integer, 5)
    .optionsGroup(group.output)
    .option('--map <folder>', 'write each found page there under a heat map of where it matches')
    .option('--map-token <word>', 'map this word of the query only (default: all its words)')
    .option('--jsonl, --json', 'one JSON object per page and line')
    .addOption(flavourOption())
    .action(async (query: string, images: string[], options: Record<string, unknown>) => {
      await search(query, images, options, context, onFailure)
    })
}

async function embed(
  args: string[],
  options: Record<string, unknown>,
  context: Context,
  onFailure: () => void
): Promise<void> {
  const { query: queries = [], out, type, pool, flavour } = options as unknown as EmbedFlags
  const flags = options as ImageFlags
  if (queries.length > 0 && (args.length > 0 || flags.image || flags.filesFrom))
    throw usageError('Expected images or --query, not both')
  if (queries.length > 0 && pool !== undefined) throw usageError('--pool is for pages: queries stay whole')
  const names = queries.length > 0 ? queries : await imagesOf(args, flags, context)
  const load = await loadOptions(options, context.signal)
  const sources = out === undefined ? [] : [...(queries.length > 0 ? [] : names), ...(await filesOfModel(load))]
  if (out !== undefined) await checkOutput(out, { option: '--out', sources })
  const { loadModel } = await import('../../index.js')
  const files = await import('../../retrieval/files.js')
  const model = await loadModel(load)
  const pictures = new Pictures(context)
  const used = flavour ?? model.info.retrievalFlavour
  let writer: VectorWriter | undefined
  let written = 0
  try {
    await forEach(names, context, onFailure, async (name) => {
      const given = { flavour: used, signal: context.signal }
      const vectors =
        queries.length > 0
          ? await model.embedText(name, given)
          : await smaller(await model.embedImage(await pictures.open(name), given), pool)
      const stored = await asType(vectors, type)
      if (out === undefined)
        return printJson(
          context,
          { [queries.length > 0 ? 'query' : 'image']: name, ...jsonVectors(stored) },
          float32Digits
        )
      writer ??= await files.VectorWriter.create(out, { type, dims: vectors.dims, flavour: used, pool: pool ?? 1 })
      await writer.add(name, stored)
      written++
    })
    await writer?.close()
  } catch (error) {
    await writer?.abandon()
    throw error
  } finally {
    await model.dispose()
  }
  if (out !== undefined && writer)
    printLine(context, `${printable(out)}: ${written} ${queries.length > 0 ? 'queries' : 'pages'}, ${type}`)
}

/** Runs `work` for every name; a failure is reported and the others go on. */
async function forEach(
  names: readonly string[],
  context: Context,
  onFailure: () => void,
  work: (name: string) => Promise<void>
): Promise<void> {
  const tally = new Tally(context, names.length, 'pages')
  try {
    for (const [i, name] of names.entries()) {
      tally.next(i, name)
      try {
        await work(name)
        tally.ok++
      } catch (error) {
        if (context.signal.aborted || error instanceof Interrupted) throw error
        const { code } = describeError(error)
        if (code !== 'ERR_IMAGE_INVALID' && code !== 'ERR_IMAGE_TOO_LARGE') throw error
        tally.pause()
        tally.failed++
        onFailure()
        printError(context, error)
      }
    }
  } finally {
    tally.end()
  }
}

async function smaller(page: MultiVector, factor: number | undefined): Promise<MultiVector> {
  return factor === undefined ? page : await (await import('../../index.js')).poolTokens(page, { factor })
}

async function asType(vectors: MultiVector, type: VectorType): Promise<PageVectors> {
  return type === 'f32' ? vectors : (await import('../../index.js')).quantizeVectors(vectors, type)
}

/** A row per token; binary rows in hexadecimal. */
function jsonVectors(vectors: PageVectors): Record<string, unknown> {
  const { tokens, dims } = vectors
  const width = tokens > 0 ? vectors.data.length / tokens : 0
  const rows = Array.from({ length: tokens }, (_, t) => vectors.data.subarray(t * width, (t + 1) * width))
  return {
    tokens,
    dims,
    type: vectors.type ?? 'f32',
    vectors:
      vectors.type === 'binary'
        ? rows.map((row) => Buffer.from(row).toString('hex'))
        : rows.map((row) => Array.from(row)),
    ...(vectors.type === 'int8' && { scales: Array.from(vectors.scales) })
  }
}

async function search(
  text: string,
  args: string[],
  options: Record<string, unknown>,
  context: Context,
  onFailure: () => void
): Promise<void> {
  const { vectors: file, limit, map, mapToken, json, flavour } = options as unknown as SearchFlags
  if ((file !== undefined) === args.length > 0)
    throw usageError('Expected images or --vectors to search, one of the two')
  const archive = args.find((name) => extname(name) === '.npz')
  if (archive !== undefined) throw usageError(`${archive} holds vectors: give it with --vectors`)
  if (mapToken !== undefined && map === undefined) throw usageError('--map-token needs --map')
  const images = file === undefined ? await expandImages(args) : []
  const { loadModel, PageIndex } = await import('../../index.js')
  const { readVectors } = await import('../../retrieval/files.js')
  const stored = file === undefined ? undefined : await readVectors(file)
  const model = await loadModel(await loadOptions(options, context.signal))
  try {
    const used = flavour ?? stored?.about.flavour ?? model.info.retrievalFlavour
    const query = await model.embedText(text, { flavour: used, signal: context.signal })
    const index = new PageIndex({ type: stored?.about.type ?? 'f32', dims: query.dims })
    const names = stored?.about.names ?? []
    for (const page of stored?.vectors ?? []) index.add(page)
    await forEach(images, context, onFailure, async (image) => {
      index.add(await model.embedImage(image, { flavour: used, signal: context.signal }))
      names.push(image)
    })
    const hits = await index.search(query, { limit, signal: context.signal })
    for (const [rank, hit] of hits.entries()) {
      const name = names[hit.page]!
      const drawn =
        map === undefined
          ? undefined
          : await drawMap(model, { query, name, rank, folder: map, word: mapToken, flavour: used, names }, context)
      report(context, { rank, hit, name, drawn, json: json === true })
    }
  } finally {
    await model.dispose()
  }
}

function report(
  context: Context,
  {
    rank,
    hit,
    name,
    drawn,
    json
  }: { rank: number; hit: SearchHit; name: string; drawn: string | undefined; json: boolean }
): void {
  if (json || !context.stdout.isTTY)
    return printJson(context, {
      rank: rank + 1,
      page: name,
      score: hit.score,
      ...(drawn !== undefined && { map: drawn })
    })
  printLine(
    context,
    `${String(rank + 1).padStart(3)}  ${hit.score.toFixed(3).padStart(8)}  ` +
      `${printable(name)}${drawn === undefined ? '' : `  ${printable(drawn)}`}`
  )
}

/** The page is embedded again: stored vectors may be pooled or quantized, and have no places. */
async function drawMap(
  model: PaliGemma,
  {
    query,
    name,
    rank,
    folder,
    word,
    flavour,
    names
  }: {
    query: MultiVector
    name: string
    rank: number
    folder: string
    word: string | undefined
    flavour: RetrievalFlavour
    names: readonly string[]
  },
  context: Context
): Promise<string> {
  const { drawSimilarityMap, similarityMap } = await import('../../index.js')
  const texts = query.texts ?? []
  const chosen = texts
    .map((token, i) => ({ token, i }))
    .filter(({ token }) => (word === undefined ? !/^(?:<bos>|<pad>|\n)$/.test(token) : token.trim() === word.trim()))
    .map(({ i }) => i)
  if (chosen.length === 0 && word !== undefined) {
    throw usageError(
      `Expected a token of the query for --map-token but received ${word}; its tokens are ${texts
        .filter((token) => !/^<(?:bos|pad)>$/.test(token))
        .map((token) => JSON.stringify(token))
        .join(', ')}`
    )
  }
  const page = await model.embedImage(name, { flavour, signal: context.signal })
  const png = await drawSimilarityMap(name, similarityMap(query, page, chosen.length > 0 ? { tokens: chosen } : {}))
  await makeFolder(folder, '--map')
  const path = join(
    folder,
    `${rank + 1}-${/^(?:https?|data|file):/.test(name) ? 'page' : basename(name, extname(name))}.png`
  )
  await writeOutput(path, png, { option: '--map', sources: names })
  return path
}
