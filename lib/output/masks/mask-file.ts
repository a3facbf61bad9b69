/** The files that hold the mask VQ-VAE: `vae-oid.npz` and GGUFs. */
import { nativeCall, PaliGemmaError } from '../../base/errors'
import { checkReadable } from '../../base/permission'
import { rule, take } from '../../base/validate'
import type { NativeTensorSource } from '../../engine/native'
import { looksLikeZip, NpzArchive } from '../../formats/npz'

// The official file holds 13 MB of float32 in both halves; one that claims much more is something else.
const maxBytes = 256 << 20

export type MaskHalf = 'decoder' | 'encoder'

/** The tensors of these halves in an npz in vae-oid's layout, and the codes; training statistics are left out. */
export async function readMaskTensors(path: string, halves: MaskHalf[] = ['decoder']): Promise<NativeTensorSource> {
  const archive = await NpzArchive.open(path)
  try {
    const tensors: NativeTensorSource = {}
    let bytes = 0
    for (const [name, array] of archive.arrays) {
      if (name !== '_vq_vae._embedding' && !halves.some((half) => name.startsWith(`${half}.`))) continue
      bytes += array.bytes
      if (bytes > maxBytes)
        throw new PaliGemmaError(
          'ERR_MODEL_INVALID',
          `${path}: array ${name}: over ${maxBytes} bytes, too much for a mask ${halves[0]}`
        )
      tensors[name] = { shape: [...array.shape], data: await array.toFloat32() }
    }
    if (bytes === 0)
      throw new PaliGemmaError(
        'ERR_MODEL_INVALID',
        `${path}: no mask ${halves[0]}, there is no array "_vq_vae._embedding"; pass vae-oid.npz`
      )
    return tensors
  } finally {
    await archive.close()
  }
}

/** What `open` of the engine makes of a half; errors name the file. */
export async function openMaskFile<T>(
  path: string | URL,
  half: MaskHalf,
  open: (source: string | NativeTensorSource) => Promise<T>
): Promise<T> {
  const file = take('path', path, rule.file) as string
  await checkReadable(file)
  const source = (await looksLikeZip(file)) ? await readMaskTensors(file, [half]) : file
  try {
    return await nativeCall(async () => await open(source))
  } catch (error) {
    // the engine knows only the tensors, not where they came from
    const { code, message } = error as PaliGemmaError
    throw message.includes(file) ? error : new PaliGemmaError(code, `${file}: ${message}`, { cause: error })
  }
}
