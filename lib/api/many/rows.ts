/** Results as rows: lines of JSON, one a picture. */
import { arrayJson } from '../../base/compact-json'
import type { BatchTask } from './batch-tasks'
import type { Detection, ObjectList, Segmentation } from '../options/objects'
import type { GenerateResult } from '../options/results'
import type { MultiVector } from '../../retrieval/vectors'

/** What a task made of a picture; of each task some fields. */
export interface ResultFields {
  /** Of `generate`, `caption`, `answer`, `ask` and `ocr`. */
  text?: string
  /** Of `detect`. */
  detections?: Detection[]
  /** Of `segment`. */
  segmentations?: Segmentation[]
  /** Of `generate`, `detect` and `segment`: why the text ended, "stop" or "length". */
  finishReason?: string
  /** Of the picture in pixels, with objects. */
  width?: number
  /** Of the picture in pixels, with objects. */
  height?: number
  /** Of `embedImage`: the vectors, [tokens, dims]; in files and in Redis compact, see {@link reviveResults}. */
  data?: unknown
  /** Of `embedImage`: how many vectors. */
  tokens?: number
  /** Of `embedImage`: values in each vector. */
  dims?: number
  /** Of other tasks: what the call gives. */
  result?: unknown
}

export function objectsOf({ detections, segmentations }: ResultFields): (Detection | Segmentation)[] | undefined {
  return segmentations ?? detections
}

const fields: Partial<Record<BatchTask, (result: never) => ResultFields>> = {
  detect: (found: ObjectList<Detection>) => ({ detections: [...found], ...sizeOf(found) }),
  segment: (found: ObjectList<Segmentation>) => ({ segmentations: [...found], ...sizeOf(found) }),
  generate: ({ text, finishReason }: GenerateResult) => ({ text, finishReason }),
  // as the vectors' own JSON has it, without what only drawing needs
  embedImage: ({ data, tokens, dims }: MultiVector) => ({ data: arrayJson(data), tokens, dims })
}

function sizeOf({ finishReason, width, height }: ObjectList<unknown>): ResultFields {
  return { width, height, finishReason }
}

export function resultFields(task: BatchTask, result: unknown): ResultFields {
  const of = fields[task]
  if (of) return of(result as never)
  return typeof result === 'string' ? { text: result } : { result }
}
