/** A row of a batch: what became of one picture, a line of JSON. */
import type { BatchTask } from '../../api/batch-tasks'
import type { GenerateResult } from '../../api/results'
import type { Detection, ObjectList, Segmentation } from '../../api/objects'
import type { MultiVector } from '../../retrieval/vectors'
import { describeError } from '../context'

/** A picture that is to become a row. */
export interface Entry {
  /** Its name in the results. */
  image: string
  /** What is looked at: `image` where there is nothing else. */
  picture?: string | Buffer
  given?: Record<string, unknown>
  /** It was named by JSON, which should have said all that it needs. */
  ofRow?: true
  /** It failed before it became a picture. */
  error?: unknown
}

export interface Row {
  /** Path, URL, or shard and path in it. */
  image: string
  /** What the picture's own line of a list or file in a shard said. */
  given?: Record<string, unknown>
  error?: { code: string; message: string }
  text?: string
  detections?: (Detection & { mask?: never })[]
  segmentations?: Segmentation[]
  finishReason?: string
  /** Of the picture, with objects. */
  width?: number
  height?: number
  /** Of embeddings. */
  data?: unknown
  tokens?: number
  dims?: number
}

/** Two rows of one key would be one picture twice. */
export function keyOf({ image, given }: Pick<Row, 'image' | 'given'>): string {
  return given === undefined ? image : `${image}\0${JSON.stringify(given)}`
}

export function objectsOf({ detections, segmentations }: Row): (Detection | Segmentation)[] | undefined {
  return segmentations ?? detections
}

/** Fields of a result. */
const fields: Partial<Record<BatchTask, (result: never) => Partial<Row>>> = {
  detect: (found: ObjectList<Detection>) => ({ detections: [...found], ...sizeOf(found) }),
  segment: (found: ObjectList<Segmentation>) => ({ segmentations: [...found], ...sizeOf(found) }),
  generate: ({ text, finishReason }: GenerateResult) => ({ text, finishReason }),
  embedImage: ({ data, tokens, dims }: MultiVector) => ({ data, tokens, dims })
}

function sizeOf({ finishReason, width, height }: ObjectList<unknown>): Partial<Row> {
  return { width, height, finishReason }
}

export function resultFields(task: BatchTask, result: unknown): Partial<Row> {
  const of = fields[task]
  return of ? of(result as never) : { text: result as string }
}

export const errorFields = (error: unknown): Partial<Row> => ({ error: describeError(error) })
