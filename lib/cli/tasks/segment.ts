/** `paligemma segment` */
import { made } from '../../images/problems'
import { loadSharp } from '../../images/sharp'
import type { Segmentation } from '../../index'
import { type Command, Option } from '../vendored'
import type { Context } from '../context'
import { addObjectOptions, describeDetection, labelsOf, objectCall } from './detect'
import { addExamples } from '../help'
import { runTask } from './task'

export function addSegment(program: Command, context: Context, onFailure: () => void): void {
  const command = program
    .command('segment')
    .summary('masks of named things')
    .description(
      "Finds things by name and prints their boxes and masks. In JSON a mask is COCO's run lengths, as in batch."
    )
  addExamples(
    command,
    "segment --model demo --label 'purple ring' node_modules/node-paligemma/demo/shapes.png --annotate drawn.png",
    "segment -l cow 'photos/*.jpg' --json > masks.jsonl"
  )
  addObjectOptions(command)
    .addOption(
      new Option(
        '--masks <form>',
        'in JSON: runs of COCO, a grey PNG of the whole image in base64, none (default: rle)'
      ).choices(['rle', 'png', 'none'])
    )
    .action(async (images: string[], options: Record<string, unknown>) => {
      const labels = labelsOf(options)
      const call = await objectCall(options, labels, context)
      const form = options['masks'] as string | undefined
      await runTask(images, options, context, onFailure, {
        name: 'segment',
        options: { ...call, labels },
        run: async (model, image) => {
          const found = await model.segment(image, labels, call)
          return {
            json: { segmentations: await Promise.all(found.map(async (item) => await inJson(item, form))) },
            text:
              found.map((item) => `${describeDetection(item)}  ${coverage(item.mask)}`).join('\n') || 'nothing found',
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

/** A mask writes itself as run lengths. */
async function inJson({ mask, ...rest }: Segmentation, form = 'rle'): Promise<object> {
  return form === 'none' ? rest : { ...rest, mask: form === 'png' ? await maskPng(mask) : mask }
}

async function maskPng(mask: Mask): Promise<{ width: number; height: number; png: string }> {
  const { width, height, data } = mask
  const sharp = await loadSharp()
  const grey = sharp(data, { raw: { width, height, channels: 1 } }).toColourspace('b-w')
  const png = await made('the mask', grey.png().toBuffer())
  return { width, height, png: png.toString('base64') }
}

export function coverage({ data }: Mask): string {
  const inside = data.reduce((sum, value) => sum + (value > 127 ? 1 : 0), 0)
  return `mask ${((100 * inside) / data.length).toFixed(1)} % of the image`
}
