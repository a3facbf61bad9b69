/** Which files of a repository a model needs, and what they become. */
import { PaliGemmaError } from '../base/errors'
import { fileTypeName, fileTypeNames } from '../formats/types'
import type { GgufHeader } from './gguf-header'
import type { HubFile } from './repository'

/** What to download, and what it becomes. */
export type Choice =
  /** `beside`: names of all files of the folder. */
  | { kind: 'checkpoint'; files: HubFile[]; folder: string; beside: string[] }
  | { kind: 'gguf'; files: HubFile[]; model: HubFile[]; vision: HubFile | undefined; type: string }
  | { kind: 'adapter'; files: HubFile[]; folder: string; base: string | undefined }

export interface ChoiceOptions {
  id: string
  /** undefined: any, Q8_0 where it must be made. */
  type: string | undefined
  /** Only a conversion can do what is asked for. */
  mustConvert: boolean
  /** Where to look; undefined: in the top folder, or in the only one that has something. */
  folder?: string | undefined
  /** The GGUF that is wanted, by its path. */
  file?: string | undefined
  /** What {@link unknownGgufs} are; a name alone decides where a header is missing. */
  headers?: ReadonlyMap<string, GgufHeader | undefined>
}

// Everything that convert reads beside the weights; config.json and a tokenizer must be there.
const checkpointFiles = [
  ...['config.json', 'generation_config.json', 'preprocessor_config.json', 'processor_config.json'],
  ...['tokenizer.model', 'tokenizer.json', 'tokenizer_config.json', 'added_tokens.json', 'special_tokens_map.json']
]
const wholeFile = 'model.safetensors'
const indexFile = 'model.safetensors.index.json'
// An adapter brings the tokens that were added for it.
const adapterFiles = [
  ...['adapter_config.json', 'adapter_model.safetensors', 'tokenizer.json', 'tokenizer_config.json'],
  ...['added_tokens.json', 'special_tokens_map.json']
]
const shard = /^model-\d{5}-of-\d{5}\.safetensors$/
const part = /-(\d{5})-of-(\d{5})\.gguf$/i
const isGguf = ({ path }: HubFile): boolean => /\.gguf$/i.test(path)
/** Whether a GGUF is called like a vision tower; a hint only, until its header is there. */
type VisionName = (file: HubFile) => boolean
/** Where every GGUF has "vision" in its name, it says nothing: a vision language model is called so, too. */
function visionNames(files: readonly HubFile[]): VisionName {
  const named = (pattern: RegExp) => (file: HubFile) => isGguf(file) && pattern.test(nameOf(file.path))
  const usual = named(/mmproj|vision/i)
  return files.every((file) => !isGguf(file) || usual(file)) ? named(/mmproj/i) : usual
}
const isFirst = ({ path }: HubFile): boolean => Number(part.exec(path)?.[1] ?? 1) === 1
const folderOf = (path: string): string => path.split('/').slice(0, -1).join('/')
const nameOf = (path: string): string => path.split('/').at(-1)!

/** One folder of a repository. */
class Folder {
  private readonly named: Map<string, HubFile>
  readonly ggufs: HubFile[]
  /** Of the top folder: folders for each type share its vision file. */
  readonly shared: HubFile[]

  constructor(
    readonly path: string,
    files: readonly HubFile[],
    readonly isVisionName: VisionName = visionNames(files)
  ) {
    const own = files.filter((file) => folderOf(file.path) === path)
    this.named = new Map(own.map((file) => [nameOf(file.path), file]))
    this.ggufs = own.filter(isGguf)
    this.shared = path === '' ? [] : files.filter((file) => folderOf(file.path) === '' && isVisionName(file))
  }

  has(name: string): boolean {
    return this.named.has(name)
  }
  some(names: readonly string[]): HubFile[] {
    return names.flatMap((name) => this.named.get(name) ?? [])
  }
  matching(pattern: RegExp): HubFile[] {
    return [...this.named].filter(([name]) => pattern.test(name)).map(([, file]) => file)
  }
  get weights(): HubFile[] {
    if (this.has(wholeFile) || !this.has(indexFile)) return this.some([wholeFile])
    const shards = this.matching(shard)
    // The index may give them other names.
    return shards.length > 0 ? shards : this.matching(/^(?!adapter_model|consolidated).*\.safetensors$/)
  }
  /** What a conversion reads. */
  get checkpoint(): HubFile[] {
    return [...this.some(checkpointFiles), ...(this.has(wholeFile) ? [] : this.some([indexFile])), ...this.weights]
  }
  get names(): string[] {
    return [...this.named.keys()]
  }
  get isCheckpoint(): boolean {
    return (
      this.weights.length > 0 && this.has('config.json') && (this.has('tokenizer.model') || this.has('tokenizer.json'))
    )
  }
  get isAdapter(): boolean {
    return !this.isCheckpoint && this.has('adapter_config.json') && this.weights.length === 0
  }
  get isEmpty(): boolean {
    return !this.isCheckpoint && !this.isAdapter && this.ggufs.every(this.isVisionName)
  }
  /** GGUFs that their names call of the type; undefined: of any. */
  ofType(type: string | undefined): HubFile[] {
    return this.ggufs.filter(
      (file) => isFirst(file) && !this.isVisionName(file) && (type === undefined || typeOf(file.path) === type)
    )
  }
}

/** The folder that is meant: the named one, the one of the type, the top one, or the only one that has something. */
function chosenFolder(files: readonly HubFile[], options: ChoiceOptions): Folder {
  const { id, folder, file, type } = options
  if (file !== undefined) return new Folder(folderOf(file), files)
  if (folder !== undefined) {
    if (!files.some(({ path }) => path.startsWith(`${folder}/`)))
      throw new PaliGemmaError('ERR_MODEL_NOT_FOUND', `${id} has no folder ${folder}${foldersHint(files)}`)
    return new Folder(folder, files)
  }
  const top = new Folder('', files)
  const others = modelFolders(files)
  const ofType = folderOfType(top, others, options)
  if (ofType) return ofType
  if (!top.isEmpty) return top
  if (others.length > 1) {
    const types = [...new Set(others.flatMap((one) => one.ofType(undefined)).flatMap(({ path }) => typeOf(path) ?? []))]
    throw new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      `${id} has models in several folders: ${others.map((one) => one.path).join(', ')}` +
        `${type === undefined || types.length === 0 ? '' : `, none as ${type}`}; choose one with --subfolder ` +
        `(option subfolder)${types.length === 0 ? '' : `, or one of the types ${types.join(', ')} with --type`}`
    )
  }
  return others[0] ?? top
}

/** Many repositories of GGUFs have a folder for each type. */
function folderOfType(top: Folder, others: Folder[], { id, type, mustConvert }: ChoiceOptions): Folder | undefined {
  if (mustConvert || top.isCheckpoint || top.isAdapter || others.some((one) => one.isCheckpoint)) return undefined
  if (type === undefined && top.ofType(undefined).length === 1) return undefined
  const wanted = type ?? 'Q8_0'
  if (top.ofType(wanted).length > 0) return top
  const having = others.filter((one) => one.ofType(wanted).length > 0)
  if (having.length > 1)
    throw new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      `${id} has files of type ${wanted} in several folders: ${having.map((one) => one.path).join(', ')}; choose one ` +
        'with --subfolder (option subfolder)'
    )
  return having[0]
}

function modelFolders(files: readonly HubFile[]): Folder[] {
  const paths = [...new Set(files.map(({ path }) => folderOf(path)))].filter((path) => path !== '').sort()
  return paths.map((path) => new Folder(path, files)).filter((one) => !one.isEmpty)
}

function foldersHint(files: readonly HubFile[]): string {
  const paths = modelFolders(files).map(({ path }) => path)
  return paths.length > 0 ? `; models are in ${paths.join(', ')}` : ''
}

/** The GGUFs whose headers decide what is taken; none where the checkpoint is. */
export function unknownGgufs(files: readonly HubFile[], options: ChoiceOptions): HubFile[] {
  const folder = chosenFolder(files, options)
  if (options.mustConvert || (folder.isCheckpoint && options.type === undefined && options.file === undefined))
    return []
  const first = folder.ggufs.filter(isFirst)
  // Beside a checkpoint only files of the wanted type matter.
  return folder.isCheckpoint && options.file === undefined
    ? first.filter(({ path }) => typeOf(path) === options.type || /mmproj|vision/i.test(path))
    : first
}

/** The files of a ready GGUF of the type, else those of the checkpoint, or of the adapter. */
export function chooseFiles(files: readonly HubFile[], options: ChoiceOptions): Choice {
  const { id, type, mustConvert } = options
  const folder = chosenFolder(files, options)
  const ready = readyModels(folder, options)
  if (!mustConvert) {
    const taken = takeReady(folder, ready, options)
    if (taken) return taken
  }
  if (folder.isCheckpoint)
    return { kind: 'checkpoint', files: folder.checkpoint, folder: folder.path, beside: folder.names }
  if (folder.isAdapter && folder.has('adapter_model.safetensors'))
    return { kind: 'adapter', files: folder.some(adapterFiles), folder: folder.path, base: undefined }
  const loose = adapterGgufs(folder, options)
  const [adapter] = loose
  if (ready.length === 0 && adapter && loose.length === 1) {
    const base = options.headers?.get(adapter.path)?.base
    return { kind: 'adapter', files: [adapter], folder: folder.path, base }
  }
  throw nothingToUse(folder, ready, id, type, mustConvert, options)
}

interface ReadyModel {
  /** All parts. */
  files: HubFile[]
  type: string
  hasVision: boolean | undefined
}

function takeReady(
  folder: Folder,
  ready: ReadyModel[],
  { id, type, file, headers }: ChoiceOptions
): Choice | undefined {
  const wanted =
    file !== undefined
      ? ready.filter((one) => one.files.some(({ path }) => path === file))
      : type !== undefined
        ? ready.filter((one) => one.type === type)
        : folder.isCheckpoint
          ? []
          : ready.length === 1
            ? ready
            : ready.filter((one) => one.type === 'Q8_0')
  const [model] = wanted
  if (!model) return undefined
  if (wanted.length > 1)
    throw new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      `${id} has several files of type ${model.type}: ${wanted.map((one) => one.files[0]!.path).join(', ')}; ` +
        'pull the one that is meant by its address on the hub'
    )
  // As its own tools do: the vision part in the highest precision that is there, which costs little.
  const vision = model.hasVision ? undefined : visionFiles(folder, headers)[0]
  const files = [...model.files, ...(vision ? [vision] : [])]
  return { kind: 'gguf', files, model: model.files, vision, type: model.type }
}

const typeInName = /(?:^|[-._])(F32|F16|BF16|I?Q\d(?:_[A-Z0-9]+)*)$/i
/** By convention names say the type: model-Q4_K_M.gguf, model-Q4_K_M-00001-of-00002.gguf, Q4_K_M/model.gguf. */
function typeOf(path: string): string | undefined {
  const name = nameOf(path)
    .replace(part, '')
    .replace(/\.gguf$/i, '')
  return (typeInName.exec(name) ?? typeInName.exec(nameOf(folderOf(path))))?.[1]?.toUpperCase()
}

type Headers = ChoiceOptions['headers']
function kindOf(file: HubFile, folder: Folder, headers: Headers): GgufHeader['kind'] {
  if (headers?.has(file.path)) return headers.get(file.path)?.kind ?? 'other'
  return folder.isVisionName(file) ? 'vision' : 'model'
}

function readyModels(folder: Folder, { id, headers }: ChoiceOptions): ReadyModel[] {
  return folder.ggufs.filter(isFirst).flatMap((file) => {
    if (kindOf(file, folder, headers) !== 'model') return []
    const header = headers?.get(file.path)
    const type = typeOf(file.path) ?? fileTypeName(header?.fileType) ?? (header ? 'GGUF' : undefined)
    return type === undefined ? [] : [{ files: partsOf(file, folder, id), type, hasVision: header?.hasVision }]
  })
}

function partsOf(first: HubFile, folder: Folder, id: string): HubFile[] {
  const count = Number(part.exec(first.path)?.[2] ?? 1)
  if (count === 1) return [first]
  const parts = Array.from({ length: Math.min(count, 1000) }, (_, i) =>
    first.path.replace(part, (text) => `-${String(i + 1).padStart(5, '0')}${text.slice(6)}`)
  )
  const files = parts.map((path) => folder.ggufs.find((file) => file.path === path))
  const missing = parts.find((_, i) => files[i] === undefined)
  if (missing !== undefined)
    throw new PaliGemmaError('ERR_MODEL_INVALID', `${id} lacks ${missing}, a part of ${first.path}`)
  return files as HubFile[]
}

const visionFiles = (folder: Folder, headers: Headers): HubFile[] =>
  [...folder.ggufs, ...folder.shared]
    .filter((file) => kindOf(file, folder, headers) === 'vision')
    .sort((a, b) => b.bytes - a.bytes)

const adapterGgufs = (folder: Folder, { headers, file }: ChoiceOptions): HubFile[] =>
  folder.ggufs.filter((one) => kindOf(one, folder, headers) === 'adapter' && (file === undefined || one.path === file))

function nothingToUse(
  folder: Folder,
  ready: ReadyModel[],
  id: string,
  type: string | undefined,
  mustConvert: boolean,
  { file, headers }: ChoiceOptions
): PaliGemmaError {
  if (file !== undefined) {
    const there = folder.ggufs.some((one) => one.path === file)
    return new PaliGemmaError(
      there ? 'ERR_MODEL_UNSUPPORTED' : 'ERR_MODEL_NOT_FOUND',
      there ? `${id}: ${file} is ${whatIs(headers?.get(file))}` : `${id} has no file ${file}`
    )
  }
  if (ready.length > 0) {
    const types = [...new Set(ready.map((one) => one.type))]
      .sort((a, b) => fileTypeNames.indexOf(a) - fileTypeNames.indexOf(b))
      .join(', ')
    return new PaliGemmaError(
      'ERR_MODEL_NOT_FOUND',
      mustConvert
        ? `${id} has ready GGUFs only, which cannot get another vision type or a mask decoder; leave those options ` +
            'out, or pull the original model'
        : `${id} has GGUFs of the types ${types} only, not ${type ?? 'Q8_0'}; choose one with --type`
    )
  }
  const lacking = [
    ...(folder.has('config.json') ? [] : ['config.json']),
    ...(folder.has('tokenizer.model') || folder.has('tokenizer.json') ? [] : ['tokenizer.model or tokenizer.json'])
  ]
  if (folder.has('adapter_model.safetensors') && !folder.has('config.json')) lacking.splice(0, 2, 'adapter_config.json')
  if (folder.has('adapter_config.json') && !folder.has('config.json')) lacking.splice(0, 2, 'adapter_model.safetensors')
  if (lacking.length === 0 && folder.matching(shard).length > 0) lacking.push(indexFile)
  const [gguf] = folder.ggufs
  const help = folder.has('adapter_model.bin')
    ? 'it is an adapter whose weights (adapter_model.bin) are pickled, which is not safe to read; save it as ' +
      'adapter_model.safetensors'
    : gguf && headers?.has(gguf.path)
      ? `${gguf.path} is ${whatIs(headers.get(gguf.path))}`
      : folder.matching(/\.npz$/).length > 0
        ? 'it has a big_vision checkpoint (.npz); pull the repository without "-jax" in its name'
        : folder.matching(/^pytorch_model.*\.bin$/).length > 0
          ? 'its weights are pickled (.bin), which is not safe to read'
          : lacking.length > 0
            ? `it lacks ${lacking.join(' and ')}`
            : 'it has neither model.safetensors nor a GGUF'
  return new PaliGemmaError(
    'ERR_MODEL_UNSUPPORTED',
    `${id}${folder.path === '' ? '' : `/${folder.path}`} has no PaliGemma that can be used: ${help}`
  )
}

function whatIs(header: GgufHeader | undefined): string {
  if (!header) return 'no GGUF'
  if (header.kind === 'vision') return 'a vision tower, to be used with a text model'
  if (header.kind === 'adapter') return 'an adapter'
  return `of the architecture ${header.architecture ?? '(none)'}, but PaliGemma is gemma or gemma2`
}
