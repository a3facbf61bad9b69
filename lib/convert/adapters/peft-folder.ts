/** Where an adapter's files lie: its folder, one of its files, or a folder around it. */
import { readdir, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { PaliGemmaError } from '../../base/errors'
import { someOf } from '../../formats/source'
import { absentAs } from '../../base/system-limits'

const configName = 'adapter_config.json'
const weightsName = 'adapter_model.safetensors'

/** The directory of a PEFT adapter given by itself, by one of its files or by a folder around it; undefined: a GGUF. */
export async function peftDirectory(path: string): Promise<string | undefined> {
  const info = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    throw new PaliGemmaError('ERR_MODEL_NOT_FOUND', `${path} cannot be read: ${cause.message}`, { cause })
  })
  if (info.isDirectory()) return await folderOf(path)
  if (/adapter_model[^/\\]*\.(?:bin|pt|pth)$/.test(path)) throw pickled(path)
  return /\.(?:safetensors|json)$/.test(path) ? dirname(path) : undefined
}

/** PEFT saves an adapter with another name than "default" in a folder of that name. */
async function folderOf(dir: string): Promise<string> {
  const names = await readdir(dir)
  if (names.includes(configName)) return dir
  const found = await foldersWithConfig(dir, 2)
  if (found.length === 1) return join(dir, found[0]!)
  const whole = names.includes('config.json')
  const weights = names.find((name) => /^adapter_model\./.test(name))
  const help =
    found.length > 1
      ? `but holds several adapters: ${someOf(found)}; name one of these folders`
      : weights !== undefined
        ? `which belongs to ${weights}; download it too`
        : whole
          ? 'but config.json of a whole model, which is no adapter; convert it ("paligemma convert") and load it as ' +
            'the model'
          : 'which every PEFT adapter has; give the folder that PEFT saved, or a GGUF adapter'
  throw new PaliGemmaError('ERR_MODEL_NOT_FOUND', `${dir} has no ${configName}, ${help}`)
}

async function foldersWithConfig(dir: string, depth: number): Promise<string[]> {
  const entries = await readdir(dir, { withFileTypes: true }).catch(absentAs([]))
  const folders = entries.filter((entry) => entry.isDirectory() && !entry.name.startsWith('.')).map(({ name }) => name)
  const found = await Promise.all(
    folders.sort().map(async (name) => {
      const inside = await readdir(join(dir, name)).catch(absentAs<string[]>([]))
      if (inside.includes(configName)) return [name]
      return depth > 1 ? (await foldersWithConfig(join(dir, name), depth - 1)).map((one) => join(name, one)) : []
    })
  )
  return found.flat()
}

/** The file of an adapter's weights, in a form that can be read. */
export async function peftWeights(dir: string): Promise<string> {
  const names = await readdir(dir)
  if (names.includes(weightsName)) return join(dir, weightsName)
  const pickle = names.find((name) => /^adapter_model.*\.(?:bin|pt|pth)$/.test(name))
  if (pickle !== undefined) throw pickled(join(dir, pickle))
  throw new PaliGemmaError(
    'ERR_MODEL_NOT_FOUND',
    `${join(dir, weightsName)} does not exist; it holds the adapter's weights, download it too`
  )
}

function pickled(path: string): PaliGemmaError {
  return new PaliGemmaError(
    'ERR_MODEL_UNSUPPORTED',
    `${path} holds pickled weights, which can run code when they are read, so they are not; ` +
      `save the adapter as ${weightsName}: load it with PEFT and call save_pretrained(folder, safe_serialization=True)`
  )
}
