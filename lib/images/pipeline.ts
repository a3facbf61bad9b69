/** sharp instances: the model sees what the pipeline itself puts out. */
import { readFile } from 'node:fs/promises'
import type { Metadata, Sharp } from 'sharp'
import { checkPixels, invalid, undecodable } from './problems'
import { loadSharp } from './sharp'
import { withThreads } from './thread-room'
import { isObject, isUint8Array } from '../base/realms'

/** Waits for a pipeline that is fed by a stream, however long that takes, and refuses SVGs that may never end. */
export async function pipelineReady(pipeline: Sharp, name: string): Promise<void> {
  let metadata: Metadata
  try {
    metadata = await pipeline.metadata()
  } catch (error) {
    throw undecodable(name, error)
  }
  if (metadata.format === 'svg' && (await mayNeverEnd(pipeline))) {
    throw invalid(
      name,
      'its SVG has filters, patterns or references, which cannot be stopped inside a pipeline; pass the SVG itself ' +
        'or the output of pipeline.png().toBuffer()'
    )
  }
}

/**
 * The output as PNG, of several frames with the height of one, which loses nothing, not compressed to save time.
 * Nothing that could change pixels is added to what was queued: sharp puts operations into an order of its own.
 */
export async function renderPipeline(
  pipeline: Sharp,
  name: string,
  limit: number
): Promise<{ png: Buffer; frameHeight: number | undefined }> {
  const { width, height } = await pipeline.metadata()
  checkPixels(width, height, name, limit) // all frames go through it
  const output = pipeline.png({ compressionLevel: 0 })
  const { data, info } = await withThreads(
    await loadSharp(),
    async () => await output.toBuffer({ resolveWithObject: true })
  )
  // frames lie one below the other
  const { pageHeight } = info as { pageHeight?: number }
  checkPixels(info.width, info.height, name, limit)
  return { png: data, frameHeight: pageHeight !== undefined && pageHeight < info.height ? pageHeight : undefined }
}

// What draws again and again what is written once, or asks for work that nothing bounds.
const costly = /<(?:\w+:)?(?:filter|use|pattern|mask|clippath|image|marker|symbol)\b|<!entity/i
const largestPlainSvg = 1 << 20

/** Looks into sharp's own options; where a later sharp keeps its input elsewhere, nothing is known. */
async function mayNeverEnd(pipeline: Sharp): Promise<boolean> {
  const { options } = pipeline as unknown as { options?: { input?: { buffer?: unknown; file?: unknown } } }
  if (!isObject(options) || !isObject(options.input)) return false
  const { buffer, file } = options.input
  const bytes = isUint8Array(buffer) ? buffer : typeof file === 'string' ? await readFile(file) : undefined
  if (!bytes) return false
  const packed = bytes[0] === 0x1f && bytes[1] === 0x8b
  return packed || bytes.length > largestPlainSvg || costly.test(Buffer.from(bytes).toString('latin1'))
}
