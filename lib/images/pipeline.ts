/** sharp instances: the model sees what the pipeline itself puts out. */
import { readFile } from 'node:fs/promises'
import type { Sharp } from 'sharp'
import { firstBytes } from '../base/first-bytes'
import { formatOf } from './formats'
import { allInputs, joinedInputs, type PipelineInput } from './pipeline-inputs'
import { checkPixels, invalid, undecodable } from './problems'
import { loadSharp } from './sharp'
import { withThreads } from './thread-room'

/** Waits for a pipeline that is fed by a stream, however long that takes, and refuses SVGs that may never end. */
export async function pipelineReady(pipeline: Sharp, name: string): Promise<void> {
  try {
    // sharp knows no metadata of several inputs
    if (joinedInputs(pipeline).length === 0) await pipeline.metadata()
  } catch (error) {
    throw undecodable(name, error)
  }
  for (const input of allInputs(pipeline)) {
    if (!(await mayNeverEnd(input))) continue
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
  const { width, height } = await inputSize(pipeline)
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

/** What is decoded before any operation; joined pictures lie in cells of the largest one's size. */
async function inputSize(pipeline: Sharp): Promise<{ width: number; height: number }> {
  const joined = joinedInputs(pipeline)
  if (joined.length === 0) return await pipeline.metadata()
  const sharp = await loadSharp()
  const sizes = await Promise.all(joined.map(async (input) => await sharp(input).metadata()))
  const largest = (side: 'width' | 'height') => Math.max(...sizes.map((size) => size[side]))
  return { width: largest('width'), height: largest('height') * joined.length }
}

// What draws again and again what is written once, or asks for work that nothing bounds.
const costly = /<(?:\w+:)?(?:filter|use|pattern|mask|clippath|image|marker|symbol)\b|<!entity/i
const largestPlainSvg = 1 << 20

async function mayNeverEnd(input: PipelineInput): Promise<boolean> {
  const start =
    typeof input === 'string'
      ? Buffer.from(await firstBytes(input, 1024), 'latin1')
      : Buffer.from(input.subarray(0, 1024))
  const packed = start[0] === 0x1f && start[1] === 0x8b
  if (packed) return true
  if (formatOf(start) !== 'svg') return false
  const bytes = typeof input === 'string' ? await readFile(input) : input
  return bytes.length > largestPlainSvg || costly.test(Buffer.from(bytes).toString('latin1'))
}
