/**
 * What bodies are described and checked with, put into one file by the build: see ../vendored.ts. Function by function,
 * since zod's own object of all of them takes three times as much.
 */
export {
  any,
  array,
  boolean,
  custom,
  discriminatedUnion,
  enum,
  int,
  literal,
  looseObject,
  null,
  number,
  object,
  record,
  strictObject,
  string,
  toJSONSchema,
  union
} from 'zod'
export type { core, output, ZodAny, ZodError, ZodNullable, ZodOptional, ZodType } from 'zod'
