/** `paligemma segment` */
import { loadSharp } from '../images/sharp'
import type { Command } from 'commander'
import type { Context } from './context'
import { addObjectOptions, describeDetection, labelsOf, objectCall } from './detect'
import { addExamples } from './help'
import { runTask } from './task'

export function addSegment(program: Command, context: Context, onFailure: () => void): void {
  const command = program
    .command('segment')
    .summary('masks of named things')
    .description(
      'Finds things by name and prints their boxes and masks. In JSON a mask is a grey PNG of the whole image, base64.'
    )
  addExamples(
    command,
    "segment --model demo --label 'purple ring' shapes.png --annotate drawn.png",
    "segment -l cow 'photos/*.jpg' --json > masks.jsonl"
  )
  addObjectOptions(command).action(async (images: string[], options: Record<string, unknown>) => {
    const labels = labelsOf(options)
    const call = await objectCall(options, labels, context)
    await runTask(images, options, context, onFailure, {
      run: async (model, image) => {
        const found = await model.segment(image, labels, call)
        const segmentations = await Promise.all(
          found.map(async (item) => ({ ...item, mask: await maskJson(item.mask) }))
        )
        return {
          json: { segmentations },
          text: found.map((item) => `${describeDetection(item)}  ${coverage(item.mask)}`).join('\n') || 'nothing found',
          drawables: found,
          finishReason: found.finishReason
        }
      }
    })
  })
}

interface Mask {
  width: number
  height: number
  data: Uint8Array
}

async function maskJson(mask: Mask): Promise<{ width: number; height: number; png: string }> {
  const { width, height, data } = mask
  const sharp = await loadSharp()
  const png = await sharp(data, { raw: { width, height, channels: 1 } })
    .toColourspace('b-w')
    .png()
    .toBuffer()
  return { width, height, png: png.toString('base64') }
}

export function coverage({ data }: Mask): string {
  const inside = data.reduce((sum, value) => sum + (value > 127 ? 1 : 0), 0)
  return `mask ${((100 * inside) / data.length).toFixed(1)} % of the image`
}
