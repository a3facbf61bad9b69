/** The mask encoder: what is inside an object's box to the 16 `<seg>` codes of training data. */
import { nativeCall } from '../../base/errors'
import { native, type NativeMaskEncoder } from '../../engine/native'
import type { Mask } from './mask'
import { openMaskFile } from './mask-file'

export class MaskEncoder {
  constructor(private readonly encoder: NativeMaskEncoder) {}

  /** As big_vision's training code: resized to 64 x 64 (bilinear, antialiased), encoded, nearest codes. */
  async encode({ data, width, height }: Mask): Promise<number[]> {
    return await nativeCall(async () => await this.encoder.encode(data, width, height))
  }
}

/**
 * From `vae-oid.npz`, or a GGUF that was converted with it.
 * @throws PaliGemmaError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_NATIVE_MISSING
 */
export async function loadMaskEncoder(path: string): Promise<MaskEncoder> {
  return new MaskEncoder(await openMaskFile(path, 'encoder', async (source) => await native().openMaskEncoder(source)))
}
