/** `convertModel`: a conversion that also knows the names of pulled adapters. */
import { convert, type ConvertOptions, type ConvertResult } from '../convert'
import { resolveAdapter } from './resolve'

/**
 * Converts a checkpoint to one GGUF. Memory stays under 400 MB whatever the model's size. Adapters are PEFT directories
 * or names that `pull` made known.
 * @throws PaliGemmaError `ERR_INVALID_OPTION`, `ERR_MODEL_NOT_FOUND` (a file is missing), `ERR_MODEL_INVALID` (a file
 * is damaged, or weights and config do not fit), `ERR_MODEL_UNSUPPORTED` (no PaliGemma), `ERR_DISK_FULL`,
 * `ERR_ACCESS_DENIED`, `ERR_WRITE_FAILED`
 */
export async function convertModel(options: ConvertOptions): Promise<ConvertResult> {
  return await convert(options, { resolveAdapter })
}
