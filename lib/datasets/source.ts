/** What the readers of data sets have in common. */
import { access } from 'node:fs/promises'
import type { Mask } from '../output/masks/mask'
import type { DataRow } from '../train/data-file'

/** A row, or what is wrong with the place where one should be. */
export type SourceRow =
  | { where: string; row: DataRow; problem?: undefined }
  | { where: string; problem: string; row?: undefined }

export type Rows = AsyncGenerator<SourceRow, void, undefined>

/** How data sets are read. */
export interface Reading {
  /** Absolute: the file or folder. */
  source: string
  /** Where relative pictures lie; default: as the form has it. */
  images?: string | undefined
  task: 'detect' | 'segment'
  per: 'picture' | 'label'
  /** Only these, in this order. */
  labels?: readonly string[] | undefined
  /** Keep exact boxes and masks beside the text. */
  truth: boolean
  /** The 16 codes of what is inside a box. */
  encode?: ((mask: Mask) => Promise<number[]>) | undefined
  /** YOLO: "train", "val" or "test" of its data.yaml. */
  subset: string
  /** CSV and VQA: the texts, with {columns}. */
  prefix?: string | undefined
  suffix?: string | undefined
  /** VQA: the file of answers, and the names of pictures. */
  annotations?: string | undefined
  imageName?: string | undefined
  signal: AbortSignal
}

const there = new WeakMap<Reading, Map<string, string | undefined>>()

/** Says what is wrong with the picture of a path; URLs are not asked for. */
export async function pictureProblem(reading: Reading, path: string): Promise<string | undefined> {
  if (/^[a-z][a-z0-9+.-]+:/i.test(path) && !/^[a-z]:[\\/]/i.test(path)) return undefined
  let known = there.get(reading)
  if (!known) there.set(reading, (known = new Map()))
  if (known.has(path)) return known.get(path)
  const problem = await access(path).then(
    () => undefined,
    () => `the picture ${path} is not there (images names the folder of pictures)`
  )
  if (known.size > 1e5) known.clear()
  known.set(path, problem)
  return problem
}

/** `{name}` of a template replaced; `{name:12}` is filled with zeros to 12 characters. Missing ones are returned. */
export function fillTemplate(template: string, values: Record<string, string>): { text: string; missing?: string } {
  let missing: string | undefined
  const text = template.replace(/\{([^{}:]+)(?::0?(\d+))?\}/g, (whole, name: string, width?: string) => {
    const value = Object.hasOwn(values, name) ? values[name] : undefined
    if (value === undefined) {
      missing ??= name
      return whole
    }
    return width === undefined ? value : value.padStart(Number(width), '0')
  })
  return missing === undefined ? { text } : { text, missing }
}

/** The one that most people gave; of several, the first. */
export function mostFrequent(answers: readonly string[]): string {
  const counts = new Map<string, number>()
  for (const answer of answers) counts.set(answer, (counts.get(answer) ?? 0) + 1)
  const most = Math.max(...counts.values())
  return [...counts].find(([, count]) => count === most)![0]
}
