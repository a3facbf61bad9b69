/**
 * What people give as a model or an adapter, as files: a path, the name of something that was pulled, or its address.
 */
import { stat } from 'node:fs/promises'
import { PaliGemmaError } from '../base/errors'
import { demoModel, leaveOutside } from '../base/package-files'
import { absolute, isAddress, toPath } from '../base/paths'
import { checkReadable } from '../base/permission'
import { fileTypeNames, parseFileType } from '../formats/types'
import { Cache, type CachedModel } from './cache'
import { folderError } from './folder'
import { type HubReference, isHubAddress, parseReference } from './reference'
import { similarNames } from './similar'

// A name that can only be meant as a file.
const fileName = /\.(gguf|safetensors|npz|bin|part)$/i

/** A model's files, and the adapters that belong to its name. */
export interface ResolvedModel {
  path: string
  vision?: string
  /** By name and file. */
  adapters?: { path: string; file: string }[]
}

/**
 * "demo" is the one that ships with the package ("./demo": a file of that name); a path or `file:` URL that
 * exists is itself; the name of a hub model is what `pull` made of it, that of an adapter its base with it;
 * anything else is left to the reader of the file, which says what is wrong with it.
 * @throws PaliGemmaError ERR_MODEL_NOT_FOUND for a hub model that was not pulled, with the command that fetches it
 */
export async function resolveModel(source: string | URL, cache?: Cache): Promise<ResolvedModel> {
  const model = isPage(source) ? String(source) : toPath(source)
  if (model === 'demo') return await demo()
  const file = absolute('', model) // now: the working folder may change
  if ((await stat(file).catch(() => undefined))?.isDirectory()) throw await folderError(file)
  const reference = await hubName(model, file)
  if (!reference && isAddress(model)) throw elsewhere(model, 'model')
  const where = cache ?? new Cache()
  if (!reference) {
    await suggest(model, file, where)
    return { path: file }
  }
  await checkReadable(where.dir)
  const found = (await where.find(reference)) ?? (await notPulled(model, reference, where))
  if (!found.adapter) return filesOf(found)
  const { base } = found.adapter
  const wanted = base === null ? undefined : parseReference(base)
  const under =
    wanted && (await where.find({ ...wanted, ...(reference.type !== undefined && { type: reference.type }) }))
  if (under) return { ...filesOf(under), adapters: [{ path: found.id, file: found.path }] }
  throw new PaliGemmaError(
    'ERR_MODEL_NOT_FOUND',
    base === null
      ? `${model} is an adapter that names no model of the hub as its base; load that one with adapters: ` +
          `['${found.id}']`
      : `${model} is an adapter of ${base}, which is not in the cache (${where.dir}); fetch it with ` +
          `"${pullCommand({ ...reference, id: found.id })}"`
  )
}

async function demo(): Promise<ResolvedModel> {
  const error = await stat(demoModel).catch((cause: NodeJS.ErrnoException) => cause)
  if (!('code' in error) || error.code !== 'ENOENT') return { path: demoModel }
  throw new PaliGemmaError(
    'ERR_MODEL_NOT_FOUND',
    `The demo model is not where the package would have it (${demoModel}): a bundler or a tool that copies what is ` +
      `used left it behind. ${leaveOutside}, and let the tool copy node_modules/node-paligemma/demo ` +
      '(outputFileTracingIncludes in next.config); or give the path of a model'
  )
}

/** An adapter's path: itself (`file`, resolved when it was given), or what `pull` made of a name. */
export async function resolveAdapter(adapter: string, file = absolute('', adapter), cache?: Cache): Promise<string> {
  const reference = await hubName(adapter, file)
  if (!reference && isAddress(adapter) && !/^file:/i.test(adapter)) throw elsewhere(adapter, 'adapter')
  if (!reference) return file
  const where = cache ?? new Cache()
  await checkReadable(where.dir)
  const found = (await where.find(reference)) ?? (await notPulled(adapter, reference, where))
  if (found.adapter) return found.path
  throw new PaliGemmaError('ERR_MODEL_UNSUPPORTED', `${adapter} is a model and no adapter; load it as the model`)
}

/** The address of a page of a hub. */
const isPage = (source: string | URL): boolean => isHubAddress(String(source))

function elsewhere(address: string, what: string): PaliGemmaError {
  return new PaliGemmaError(
    'ERR_INVALID_OPTION',
    `Expected a path on this machine or the name of a pulled ${what} but received the address ${address}; download ` +
      'it, or where it is a page of the Hugging Face hub, fetch it with "npx paligemma pull"'
  )
}

const filesOf = ({ path, vision }: CachedModel): ResolvedModel => ({ path, ...(vision !== null && { vision }) })

/** undefined: the text is a path. */
async function hubName(text: string, file: string): Promise<HubReference | undefined> {
  const exists = await stat(file).then(
    () => true,
    () => false
  )
  if (exists) return undefined
  const reference = !isPage(text) && fileName.test(text) ? undefined : parseReference(text, process.env['HF_ENDPOINT'])
  // A wrong type must not end in advice to pull it.
  if (reference?.type !== undefined) reference.type = parseFileType(reference.type).name
  return reference
}

const pullCommand = ({ id, revision, type, folder }: HubReference): string =>
  [
    `npx paligemma pull ${id}`,
    ...(revision === undefined ? [] : ['--revision', revision]),
    ...(folder === undefined ? [] : ['--subfolder', folder]),
    ...(type === undefined ? [] : ['--type', type])
  ].join(' ')

/** A name without its owner is a path, and mostly none that exists. */
async function suggest(given: string, file: string, where: Cache): Promise<void> {
  if (/[/\\]|\.gguf$/i.test(given) || (await stat(file).catch(() => undefined))) return
  const pulled = similarNames(given, ['demo', ...(await where.names())])
  const [name] = pulled.length > 0 ? pulled : similarNames(given)
  if (name === undefined) return
  throw new PaliGemmaError(
    'ERR_MODEL_NOT_FOUND',
    `${file}: no such file; did you mean ${name}` +
      (name === 'demo' ? '?' : pulled.length > 0 ? ', which was pulled?' : `? "npx paligemma pull ${name}" fetches it`)
  )
}

async function notPulled(given: string, reference: HubReference, where: Cache): Promise<never> {
  const commit = await where.commitOf(reference.id, reference.revision ?? 'main')
  const others = commit === undefined ? [] : (await where.modelsOf(reference.id, commit)).map((other) => other.type)
  const types = others.sort((a, b) => fileTypeNames.indexOf(a) - fileTypeNames.indexOf(b)).join(', ')
  const similar = similarNames(reference.id, await where.names())
  throw new PaliGemmaError(
    'ERR_MODEL_NOT_FOUND',
    `${given} is no file, and as a model of the Hugging Face hub it is not in the cache (${where.dir}` +
      `${types === '' ? '' : `, which has it as ${types}`}` +
      `${similar.length === 0 ? '' : `, which has ${similar.join(', ')}: did you mean that?`}); fetch it with ` +
      `"${pullCommand(reference)}"`
  )
}
