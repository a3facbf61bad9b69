/** Results as rows: lines of JSON, one a picture. */
import { arrayJson } from '../../base/compact-json'
import type { BatchTask } from './batch-tasks'
import type { Detection, ObjectList, Segmentation } from '../options/objects'
import type { GenerateResult } from '../options/results'
import type { MultiVector } from '../../retrieval/vectors'

/** What a task made of a picture; of each task some fields. */
export interface ResultFields {
  text?: string
  detections?: Detection[]
  segmentations?: Segmentation[]
  finishReason?: string
  /** Of the picture, with objects. */
  width?: number
  height?: number
  /** Of embeddings. */
  data?: unknown
  tokens?: number
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
