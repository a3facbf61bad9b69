/** Which engine serves the calls that take no `nativeBinding`. */
import { check, rule, type Rule } from '../../base/validate'
import { isBinding, isFileUrl, useNative } from '../../engine/native'

export const nativeBindingRule: Rule = {
  expected: 'path, file: URL or the loaded addon',
  accepts: (v) => rule.path.accepts(v) || (typeof v === 'object' && v !== null && (isFileUrl(v) || isBinding(v)))
}

/**
 * Names the engine for everything that has no option for it: `loadTokenizer`, `inspectModel`, `maxSim`, `PageIndex`,
 * `loadMaskDecoder`, `convertModel`, ... As the load option `nativeBinding`: the path or `file:` URL of the `.node`
 * file, or what requiring it gave. Call it once, before the others. PALIGEMMA_NATIVE says the same from outside.
 * @throws PaliGemmaError ERR_INVALID_OPTION, ERR_NATIVE_MISSING
 */
export function setNativeBinding(nativeBinding: string | URL | object): void {
  check('nativeBinding', nativeBinding, nativeBindingRule)
  useNative(nativeBinding)
}
