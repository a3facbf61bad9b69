/** A row of a batch: what became of one picture, a line of JSON. */
import type { ResultFields } from '../../api/many/rows'
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

export interface Row extends ResultFields {
  /** Path, URL, or shard and path in it. */
  image: string
  /** What the picture's own line of a list or file in a shard said. */
  given?: Record<string, unknown>
  error?: { code: string; message: string }
}

/** Two rows of one key would be one picture twice. */
export function keyOf({ image, given }: Pick<Row, 'image' | 'given'>): string {
  return given === undefined ? image : `${image}\0${JSON.stringify(given)}`
}

export const errorFields = (error: unknown): Partial<Row> => ({ error: describeError(error) })
