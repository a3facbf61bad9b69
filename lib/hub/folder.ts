/** A folder where a model file is meant: what lies in it tells what to do. */
import { readdir } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { PaliGemmaError } from '../base/errors'
import { absentAs } from '../base/system-limits'

/** The error for `dir` as a model. */
export async function folderError(dir: string): Promise<PaliGemmaError> {
  const names = (await readdir(dir).catch(absentAs([]))).sort()
  const ggufs = names.filter((name) => /\.gguf$/i.test(name))
  const archive = names.find((name) => /\.npz$/i.test(name))
  const out = `${basename(dir)}-Q4_K_M.gguf`
  const convert = (source: string) => `paligemma convert ${source} --out ${out} --type Q4_K_M`
  const help =
    ggufs.length > 0
      ? `give the path of the file in it: ${ggufs
          .slice(0, 4)
          .map((name) => join(dir, name))
          .join(', ')}`
      : names.includes('adapter_config.json') && !names.includes('config.json')
        ? 'it holds an adapter; load the model that it was trained on, with this folder in adapters (--adapter)'
        : names.includes('config.json') || names.some((name) => /\.safetensors$/i.test(name))
          ? `it holds a Hugging Face checkpoint; models are loaded from one GGUF, which this makes: ${convert(dir)}`
          : archive !== undefined
            ? 'it holds a big_vision checkpoint; models are loaded from one GGUF, which this makes: ' +
              `${convert(join(dir, archive))}`
            : 'it holds no model; give the path of a .gguf file'
  return new PaliGemmaError('ERR_MODEL_NOT_FOUND', `${dir} is a directory: ${help}`)
}
