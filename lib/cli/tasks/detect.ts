/** `paligemma detect` */
import type { Command } from '../vendored'
import type { DetectOptions } from '../../api/options/options'
import { collect, integer, number, pick, samplingOptions, tiles } from '../args'
import { type Context, usageError } from '../context'
import { addExamples, group } from '../help'
import { addTaskOptions, runTask } from './task'

export function addDetect(program: Command, context: Context, onFailure: () => void): void {
  const command = program
    .command('detect')
    .summary('boxes around named things')
    .description('Finds things by name and prints their boxes.')
  addExamples(
    command,
    "detect --model demo --label 'purple ring' --label 'black heart' node_modules/node-paligemma/demo/shapes.png",
    "detect -l 'cow; boat' photos/ --annotate drawn/ --json > found.jsonl"
  )
  addObjectOptions(command).action(async (images: string[], options: Record<string, unknown>) => {
    const labels = labelsOf(options)
    const call = await objectCall(options, labels, context)
    await runTask(images, options, context, onFailure, {
      name: 'detect',
      options: { ...call, labels },
      run: async (model, image) => {
        const detections = await model.detect(image, labels, call)
        const text = detections.map(describeDetection).join('\n') || 'nothing found'
        return { json: { detections }, text, drawables: detections, finishReason: detections.finishReason }
      }
    })
  })
}

/** Options that detect and segment share. */
export function addObjectOptions(command: Command): Command {
  return addTaskOptions(command)
    .optionsGroup(group.task)
    .option(
      '-l, --label <name>',
      'what to look for; may be given several times, or several names separated by ";"',
      collect
    )
    .option('--max-objects <n>', 'stop after so many objects (default: no limit)', integer)
    .option(
      '--min-score <p>',
      'leave out objects with a lower score, 0..1; 0 shows all (default: 0.5 divided by the number of names, 0 with ' +
        '--beams)',
      number
    )
    .option('--nms <iou>', 'of boxes of one name that overlap more than this, keep the best (default: off)', number)
    .option('--class-agnostic', '--nms compares boxes of different names too')
    .option(
      '--tiles <grid>',
      'look at tiles of a large picture too: auto, 4x3 (columns x rows) or 800 (pixels); :0.3 for another overlap',
      tiles
    )
    .option('--no-constrain', 'let the model write anything, and print what can be parsed')
    .optionsGroup(group.output)
    .option('--annotate <png>', 'write the image with the results; with several images a folder')
    .option('--show-tiles', 'with --annotate and --tiles: the tiles in the picture, too')
}

export function labelsOf(options: Record<string, unknown>): string[] {
  const labels = ((options['label'] as string[] | undefined) ?? [])
    .flatMap((text) => text.split(';'))
    .map((text) => text.trim())
    .filter(Boolean)
  if (labels.length === 0) throw usageError('Expected at least one --label, the name of what to look for')
  return labels
}

export async function objectCall(
  options: Record<string, unknown>,
  labels: string[],
  context: Context
): Promise<DetectOptions> {
  const { recommendedMinScore } = await import('../../index.js')
  const iou = options['nms'] as number | undefined
  const classAgnostic = options['classAgnostic'] === true
  if (options['showTiles'] && (options['annotate'] === undefined || options['tiles'] === undefined))
    throw usageError('--show-tiles needs --annotate and --tiles')
  if (classAgnostic && iou === undefined) throw usageError('--class-agnostic needs --nms')
  const beams = (options['beams'] as number | undefined) ?? 1
  return {
    // beams know the tokens' own probabilities alone, of which scores are a thousand times lower
    minScore: beams > 1 ? 0 : recommendedMinScore(labels),
    ...pick(options, ['maxObjects', 'minScore', 'tiles']),
    ...(iou !== undefined && { nms: classAgnostic ? { iou, classAgnostic } : iou }),
    ...(options['constrain'] === false ? { constrain: false } : {}),
    ...samplingOptions(options, context.signal)
  }
}

/** "cow  x 12 y 40 width 200 height 150  score 0.93" */
export function describeDetection({
  label,
  box,
  score
}: {
  label: string
  box: { x: number; y: number; width: number; height: number }
  score?: number
}): string {
  return (
    `${label || '(no name)'}  x ${box.x} y ${box.y} width ${box.width} height ` +
    `${box.height}${score === undefined ? '' : `  score ${score.toFixed(2)}`}`
  )
}
