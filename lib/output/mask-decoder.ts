/** The mask decoder on its own: 16 `<seg>` codes to a 64 x 64 mask, without a model. */
import type { PlainFloats } from '../base/plain-memory'
import { nativeCall, PaliGemmaError } from '../base/errors'
import { checkReadable } from '../base/permission'
import { native, type NativeMaskDecoder, type NativeTensorSource } from '../engine/native'
import { NpzArchive, looksLikeZip } from '../formats/npz'
import { check, rule, take, takeList, type Rule } from '../base/validate'

// The official decoder holds 7 MB of float32; a file that claims much more is something else.
const maxBytes = 256 << 20

/** The decoder's tensors of an npz in vae-oid's layout; its encoder half and training statistics are left out. */
export async function readMaskTensors(path: string): Promise<NativeTensorSource> {
  const archive = await NpzArchive.open(path)
  try {
    const tensors: NativeTensorSource = {}
    let bytes = 0
    for (const [name, array] of archive.arrays) {
      if (name !== '_vq_vae._embedding' && !name.startsWith('decoder.')) continue
      bytes += array.bytes
      if (bytes > maxBytes)
        throw new PaliGemmaError(
          'ERR_MODEL_INVALID',
          `${path}: array ${name}: over ${maxBytes} bytes, too much for a mask decoder`
        )
      tensors[name] = { shape: [...array.shape], data: await array.toFloat32() }
    }
    if (bytes === 0)
      throw new PaliGemmaError(
        'ERR_MODEL_INVALID',
        `${path}: no mask decoder, there is no array "_vq_vae._embedding"; pass vae-oid.npz`
      )
    return tensors
  } finally {
    await archive.close()
  }
}

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
export async function loadMaskDecoder(path: string): Promise<MaskDecoder> {
  const file = take('path', path, rule.file)
  await checkReadable(file)
  const source = (await looksLikeZip(file)) ? await readMaskTensors(file) : file
  try {
    return new MaskDecoder(await nativeCall(() => native().openMaskDecoder(source)))
  } catch (error) {
    // the engine knows only the tensors, not where they came from
    const { code, message } = error as PaliGemmaError
    throw message.includes(file) ? error : new PaliGemmaError(code, `${file}: ${message}`, { cause: error })
  }
}
