/** The options of `paligemma batch`, and which of them go together. */
import type { BatchTask } from '../../api/many/batch-tasks'
import type { DetectOptions } from '../../api/options/options'
import { pick, samplingOptions } from '../args'
import { flagOf } from '../checks'
import { type Context, usageError } from '../context'
import { labelsOf } from '../tasks/detect'
import { chooseModel } from '../model'

/** Tasks as the command calls them, and their calls. */
export const tasks = {
  caption: 'caption',
  answer: 'answer',
  ocr: 'ocr',
  detect: 'detect',
  segment: 'segment',
  generate: 'generate',
  embed: 'embedImage'
} as const satisfies Record<string, BatchTask>
export type TaskName = keyof typeof tasks

export const formats = ['jsonl', 'csv', 'coco', 'yolo'] as const
export type Format = (typeof formats)[number]

export interface BatchFlags {
  task: TaskName
  out: string
  format: Format
  filesFrom?: string[]
  concurrency?: number
  ordered?: boolean
  retryFailed?: boolean
  overwrite?: boolean
  [option: string]: unknown
}

const flagsOf: Record<string, readonly TaskName[]> = {
  label: ['detect', 'segment'],
  minScore: ['detect', 'segment'],
  maxObjects: ['detect', 'segment'],
  nms: ['detect', 'segment'],
  tiles: ['detect', 'segment', 'ocr'],
  question: ['answer'],
  choice: ['answer'],
  prompt: ['generate'],
  style: ['caption'],
  lang: ['caption', 'answer']
}

/** By the name of `out` where nobody says. */
export function formatOf({ format, out }: { format?: Format; out: string }): Format {
  return format ?? (/\.csv$/i.test(out) ? 'csv' : 'jsonl')
}

/** Throws for options of another task, and for formats that cannot hold its results. */
export function checkTogether({ task, format, ...options }: BatchFlags): void {
  for (const [flag, of] of Object.entries(flagsOf))
    if (options[flag] !== undefined && !of.includes(task))
      throw usageError(`${flagOf(flag)} goes with --task ${of.join(' or ')}, not with ${task}`)
  if ((format === 'coco' || format === 'yolo') && task !== 'detect' && task !== 'segment')
    throw usageError(`--format ${format} holds boxes and masks: expected --task detect or segment`)
  if (format === 'csv' && task === 'embed') throw usageError('--task embed writes --format jsonl only')
}

const needed: Partial<Record<TaskName, string>> = {
  answer: 'question',
  detect: 'label',
  segment: 'label',
  generate: 'prompt'
}

/** Throws where pictures that bring nothing along would all lack the same. */
export function checkNeeded(flags: BatchFlags): void {
  const flag = needed[flags.task]
  if (flag !== undefined && flags[flag] === undefined)
    throw usageError(`Expected ${flagOf(flag)} for --task ${flags.task}, or rows (.jsonl) that say it for each picture`)
}

/** The options of the task for all pictures. */
export async function sharedOptions(flags: BatchFlags, context: Context): Promise<Record<string, unknown>> {
  const { signal: _, ...sampling } = samplingOptions(flags, context.signal)
  const { choice, label, minScore } = flags as { choice?: string[]; label?: string[]; minScore?: number }
  const labels = label && labelsOf(flags)
  return {
    ...sampling,
    ...pick(flags, ['maxObjects', 'nms', 'tiles', 'question', 'prompt', 'style', 'lang']),
    ...(choice && { choices: choice }),
    ...(labels && { labels }),
    ...(labels || minScore !== undefined ? { minScore: minScore ?? (await recommended(labels!)) } : {})
  }
}

/** As the verbs that look for things have it. */
export async function recommended(labels: string | string[]): Promise<DetectOptions['minScore']> {
  const { recommendedMinScore } = await import('../../index.js')
  return recommendedMinScore(labels)
}

// What may change from one run to the next: nothing here changes a row.
const free = ['filesFrom', 'out', 'concurrency', 'ordered', 'retryFailed', 'overwrite', 'threads', 'device', 'model']

/** What rows depend on. */
export async function settingsOf(flags: BatchFlags): Promise<Record<string, unknown>> {
  const rest = Object.entries(flags).filter(([name, value]) => !free.includes(name) && value !== undefined)
  return { model: await chooseModel(flags['model']), ...Object.fromEntries(rest) }
}
