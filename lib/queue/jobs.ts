/** What a job is: in the program that adds it, and in Redis. */
import { createHash } from 'node:crypto'
import { batchTaskRules, itemKeys, taskRule, type BatchTask, type BatchTasks } from '../api/many/batch-tasks'
import { PaliGemmaError } from '../base/errors'
import { isUint8Array, isUrl } from '../base/realms'
import { check, readFields, readOptions, rule, take, type Rule } from '../base/validate'
import { reviveResults } from '../output/masks/mask-forms'
import type { ResultFields } from '../api/many/rows'

/** What cannot go through Redis, and what the job itself names. */
type Own = 'signal' | 'onToken' | 'onTile' | 'onObject' | 'image' | 'images'

interface JobOf<T extends BatchTask> {
  /**
   * The job's name, by which its result is found; the same name is added once. Default: made of what is to be done, so
   * that a producer that runs again adds nothing twice.
   */
  id?: string | undefined
  /** The name of a call, as for `model.batch`. */
  task: T
  /**
   * A path or URL as the workers see it, or encoded bytes (at most 8 MiB: they go through Redis, see docs/queue.md).
   */
  image?: string | URL | Uint8Array | undefined
  /** Of the task: `labels`, `question`, `lang`, `maxTokens`, ... */
  options?:
    | { [K in Exclude<keyof BatchTasks[T]['options'], Own>]?: BatchTasks[T]['options'][K] | undefined }
    | undefined
  /** 1 is the most urgent, 2,097,150 the least; default: after all that have one. Equal ones in the order they came. */
  priority?: number | undefined
  /** Milliseconds before it may be taken; default 0. */
  delayMs?: number | undefined
}

/** A picture and what is to be done with it. */
export type PictureJob = { [T in BatchTask]: JobOf<T> }[BatchTask]

/** A job in Redis. */
export interface JobData {
  id: string
  task: BatchTask
  image?: string
  /** Of encoded bytes, in base64. */
  bytes?: string
  options: Record<string, unknown>
}

/**
 * What became of a job: its `result`, or the `error` of its last try, with a {@link PaliGemmaError}'s code (others are
 * ERR_INTERNAL). The other one is undefined.
 */
export type JobResult = {
  /** As given or made when it was added. */
  id: string
  /** The path or URL that was added; undefined of encoded bytes, and without a picture. */
  image: string | undefined
  /** As it was added. */
  task: BatchTask
  /** How often it was tried. */
  attempts: number
} & ({ result: ResultFields; error?: undefined } | { result?: undefined; error: { code: string; message: string } })

/** The last place that BullMQ has: it takes jobs that name none before all others. */
export const noPriority = 2 ** 21 - 1

const mostBytes = 8 << 20
const jobKeys = ['id', 'task', 'image', 'options', 'priority', 'delayMs']
const imageRule: Rule = {
  expected: 'path, URL or encoded bytes of at most 8 MiB',
  take: (v) => (isUrl(v) ? v.href : v),
  accepts: (v) => (typeof v === 'string' && v !== '') || (isUint8Array(v) && v.length > 0 && v.length <= mostBytes)
}

export interface NewJob {
  data: JobData
  priority: number | undefined
  delayMs: number | undefined
}

/** @throws PaliGemmaError ERR_INVALID_OPTION */
export function takeJob(name: string, given: unknown): NewJob {
  const fields = readFields(name, given, jobKeys, 'a job ({ task, image, options? })')
  const { id, priority, delayMs } = fields as { id?: string; priority?: number; delayMs?: number }
  const task = take(`${name}.task`, fields['task'] as BatchTask, taskRule)
  if (id !== undefined) check(`${name}.id`, id, rule.path)
  if (priority !== undefined) check(`${name}.priority`, priority, rule.integer(1, noPriority - 1))
  if (delayMs !== undefined) check(`${name}.delayMs`, delayMs, rule.integer(0, 2 ** 40))
  const options = takeOptions(task, fields['options'] ?? {})
  const needsImage = task !== 'generate' && task !== 'score'
  if (needsImage || fields['image'] !== undefined) take(`${name}.image`, fields['image'], imageRule)
  const image = imageRule.take!(fields['image'], '') as string | Uint8Array | undefined
  const work = {
    task,
    ...(typeof image === 'string' ? { image } : image && { bytes: Buffer.from(image).toString('base64') }),
    options
  }
  return { data: { id: id ?? digest(JSON.stringify(work)), ...work }, priority, delayMs }
}

/** Plain values alone, for they go through JSON. */
function takeOptions(task: BatchTask, given: unknown): Record<string, unknown> {
  const keys = itemKeys(task)
  const rules = Object.fromEntries(Object.entries(batchTaskRules[task]).filter(([key]) => keys.includes(key)))
  readOptions(`a ${task} job`, given, rules as never)
  return JSON.parse(JSON.stringify(given)) as Record<string, unknown>
}

/** A job's data as it came out of Redis. @throws PaliGemmaError ERR_INVALID_OPTION */
export function readJob(given: unknown): JobData {
  const data = readFields('a job', given, ['id', 'task', 'image', 'bytes', 'options']) as unknown as JobData
  check('task', data.task, taskRule)
  check('id', data.id, rule.path)
  check('options', data.options, rule.object)
  if (data.image !== undefined) check('image', data.image, rule.path)
  if (data.bytes !== undefined) check('bytes', data.bytes, rule.text)
  return data
}

const digest = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 40)

/** BullMQ takes no colons and no whole numbers. */
export function bullId(id: string): string {
  return /^[\w.-]{1,200}$/.test(id) && !/^\d+$/.test(id) ? id : `h-${digest(id)}`
}

/** Masks and vectors, which Redis holds as text, as they were. */
export function revived(value: unknown): ResultFields {
  return JSON.parse(JSON.stringify(value ?? {}), reviveResults) as ResultFields
}

/** "CODE: message", as a job fails with. */
export function parseFailure(text: string): { code: string; message: string } {
  const [, code, message] = /^(ERR_[A-Z_]+): (.*)$/s.exec(text) ?? []
  return code === undefined ? { code: 'ERR_INTERNAL', message: text } : { code, message: message! }
}

/** A failure that comes again on every machine, however often. */
export function isFinal(error: unknown, { image = '' }: JobData): boolean {
  if (!(error instanceof PaliGemmaError)) return false
  // a server may answer the next time
  if (error.code === 'ERR_IMAGE_INVALID') return !/^https?:/i.test(image)
  return [
    'ERR_INVALID_OPTION',
    'ERR_IMAGE_TOO_LARGE',
    'ERR_PROMPT_TOO_LONG',
    'ERR_MODEL_UNSUPPORTED',
    'ERR_OUTPUT_INCOMPLETE',
    'ERR_OUTPUT_INVALID'
  ].includes(error.code)
}
