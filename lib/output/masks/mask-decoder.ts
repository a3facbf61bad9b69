/** The mask decoder on its own: 16 `<seg>` codes to a 64 x 64 mask, without a model. */
import type { PlainFloats } from '../../base/plain-memory'
import { nativeCall } from '../../base/errors'
import { native, type NativeMaskDecoder } from '../../engine/native'
import { openMaskFile } from './mask-file'
import { check, rule, take, takeList, type Rule } from '../../base/validate'

export const codesRule: Rule = {
  expected: '16 integers from 0 to 127',
  take: (v) => takeList(v, 16),
  accepts: (v) => Array.isArray(v) && v.length === 16 && v.every(rule.integer(0, 127).accepts)
}

/** Decodes the 16 codes of a `segment` result. Made by {@link loadMaskDecoder}. */
export class MaskDecoder {
  /** @internal */
  constructor(private readonly decoder: NativeMaskDecoder) {
    check('a new MaskDecoder', decoder, {
      expected: 'what loadMaskDecoder makes',
      accepts: (v) => rule.function.accepts((v as NativeMaskDecoder).decode)
    })
  }

  /**
   * The decoder's raw output for 16 codes in 0..127: [64, 64] row-major, about -1..1, object where positive. It covers
   * the object's box, not the picture.
   * @throws PaliGemmaError ERR_INVALID_OPTION
   */
  async decode(codes: number[]): Promise<PlainFloats> {
    const list = take('codes', codes, codesRule)
    return await nativeCall(() => this.decoder.decode(list))
  }
}

/**
 * Loads a mask decoder from `vae-oid.npz` (gs://big_vision/paligemma/vae-oid.npz) or a GGUF that holds one.
 * @throws PaliGemmaError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_INVALID_OPTION, ERR_NATIVE_MISSING
 */
export async function loadMaskDecoder(path: string | URL): Promise<MaskDecoder> {
  return new MaskDecoder(await openMaskFile(path, 'decoder', async (source) => await native().openMaskDecoder(source)))
}
