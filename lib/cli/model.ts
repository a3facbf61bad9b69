/** Which model a verb runs when nobody names one. */
import type { WithPaths } from '../base/validate'
import type { Command } from './vendored'
import { expandPath } from '../base/expand-path'
import type { LoadOptions } from '../index'
import { usageError } from './context'
import { group } from './help'

export function addModelOption(command: Command): Command {
  return command
    .optionsGroup(group.model)
    .option(
      '-m, --model <file>',
      'the model: a GGUF, the name of a pulled one, or "demo" (default: PALIGEMMA_MODEL, else the only pulled one)'
    )
}

/** What --model says, else the environment, else the only model in the cache. */
export async function chooseModel(given: unknown): Promise<string> {
  if (given === '')
    throw usageError('Expected a GGUF, the name of a pulled model or "demo" for --model but received ""')
  if (typeof given === 'string') return given
  const named = expandPath(process.env['PALIGEMMA_MODEL']?.trim() ?? '', 'PALIGEMMA_MODEL')
  if (named) return named
  const { listPulled } = await import('../hub/manage.js')
  const pulled = await listPulled()
  const models = pulled.models.filter(({ adapter }) => !adapter)
  if (models.length === 1) return models[0]!.name
  if (models.length === 0)
    throw usageError(
      'Expected --model. Get one with "paligemma pull google/paligemma2-3b-mix-224 --type Q4_K_M", ' +
        'or try "--model demo", the small model that ships with the package'
    )
  const names = models.map(({ name }) => name)
  throw usageError(`Expected --model (or PALIGEMMA_MODEL) since several models are pulled: ${names.join(', ')}`)
}

/** The files of a model and of what is loaded with it: no output of a verb takes the place of one of them. */
export async function filesOfModel({
  model,
  vision,
  maskDecoder,
  adapters
}: WithPaths<LoadOptions>): Promise<string[]> {
  const [{ resolveModel }, { filesRead }] = await Promise.all([
    import('../hub/resolve.js'),
    import('../convert/inputs.js')
  ])
  const { path, vision: beside } = await resolveModel(model)
  return await filesRead({ source: [path, beside, vision], maskDecoder, adapters })
}
