/** From a file, an address or a name to a loaded {@link PaliGemma}. */
import { publicCall } from '../base/call'
import { isUrl } from '../base/realms'
import { addOption, wrongOption, type WithPaths } from '../base/validate'
import { native, type NativeBinding, type NativeChoice } from '../engine/native'
import { resolveModel } from '../hub/resolve'
import { warnBeyondTraining } from './options/context-size'
import { definedOnly, ModelHost } from './request/host'
import { PaliGemma } from './model'
import { type LoadOptions, loadRules } from './options/options'

/** Both arguments of {@link loadModel} as one object. */
function withSource(source: string | URL | LoadOptions, options: unknown): unknown {
  const named = typeof source === 'string' || isUrl(source)
  if (options === undefined) return named ? { model: String(source) } : source
  if (!named) throw wrongOption('the first of two arguments of loadModel', 'path or name of a model', source)
  return addOption('loadModel', options, loadRules, 'model', String(source))
}

/** {@link loadModel} over a given binding. */
export async function openModel(
  binding: (choice?: NativeChoice) => NativeBinding,
  source: string | URL | LoadOptions,
  options?: Omit<LoadOptions, 'model'>
): Promise<PaliGemma> {
  return await publicCall<WithPaths<LoadOptions>, PaliGemma>(
    'loadModel',
    withSource(source, options),
    loadRules,
    ['model'],
    async (options) => {
      const { path, vision, adapters = [] } = await resolveModel(options.model)
      const resolved = {
        ...definedOnly({ vision }),
        ...options,
        ...(adapters.length > 0 && { adapters: [...adapters, ...(options.adapters ?? [])] }),
        model: path
      }
      const engine = binding(options.nativeBinding)
      const host = await ModelHost.open(engine, resolved)
      await warnBeyondTraining(engine, resolved)
      return new PaliGemma(host)
    }
  )
}

/**
 * Loads a model: `await loadModel('paligemma2-3b-mix-224-Q4_K_M.gguf')`, or by the name of one that {@link pull}
 * fetched (`'google/paligemma2-3b-mix-224'`); a path (or `file:` URL) that exists wins. Weights stay memory-mapped;
 * several models from one file share them. Free it with `dispose()` or `await using`; an unreachable idle model is
 * collected too.
 * @throws PaliGemmaError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED, ERR_INVALID_OPTION,
 * ERR_OUT_OF_MEMORY, ERR_MODEL_CHANGED, ERR_DEVICE_UNAVAILABLE, ERR_NATIVE_MISSING; an abort rejects with the signal's
 * reason
 */
export async function loadModel(source: string | URL, options?: Omit<LoadOptions, 'model'>): Promise<PaliGemma>
/** The same with all in one object, `loadModel({ model, ...options })`, or with a path or name alone. */
export async function loadModel(source: string | URL | LoadOptions): Promise<PaliGemma>
export async function loadModel(
  source: string | URL | LoadOptions,
  options?: Omit<LoadOptions, 'model'>
): Promise<PaliGemma> {
  return await openModel(native, source, options)
}
