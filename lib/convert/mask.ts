/** The decoder half of vae-oid.npz, for GGUF's `mask.*` tensors. */
import { PaliGemmaError } from '../errors'
import { NpzArchive } from '../npz'

/** Tensors under vae-oid's names, float32, PyTorch layout. */
export type MaskTensors = Record<string, { shape: number[], data: Float32Array }>

/** What decoding needs; the encoder and the training averages stay out. The engine checks the shapes. */
const needed = /^(?:_vq_vae\._embedding|decoder\..+\.(?:weight|bias))$/

/** Reads the code book and the decoder of an npz in vae-oid's layout. */
export async function readMaskTensors (path: string): Promise<MaskTensors> {
  const archive = await NpzArchive.open(path)
  try {
    const tensors: MaskTensors = {}
    for (const [name, array] of archive.arrays) {
      if (needed.test(name)) tensors[name] = { shape: array.shape, data: await array.toFloat32() }
    }
    for (const name of ['_vq_vae._embedding', 'decoder.0.weight']) {
      if (!tensors[name]) throw new PaliGemmaError('ERR_MODEL_INVALID', `${path}: there is no array ${name}; it is not the mask decoder (vae-oid.npz)`)
    }
    return tensors
  } finally {
    await archive.close()
  }
}
