/**
 * Schemas of zod, valibot, arktype and others by their common interface (https://standardschema.dev), and their types.
 */
import { PaliGemmaError } from '../../base/errors'
import { isError } from '../../base/realms'
import { wrongOption } from '../../base/validate'
import type { JsonSchema } from './json-schema'

/** What a library's schema says about itself; `jsonSchema` is newer than the rest, and not everywhere. */
export interface StandardSchema<Input = unknown, Output = Input> {
  /** What the specification asks of every schema. */
  readonly '~standard': {
    /** Of the specification. */
    readonly version: 1
    /** The library: "zod", "valibot", "arktype". */
    readonly vendor: string
    /** Checks a value, and applies defaults and transforms. */
    readonly validate?: (value: unknown) => StandardResult<Output> | Promise<StandardResult<Output>>
    /** For TypeScript alone: what goes in and what comes out. */
    readonly types?: { readonly input: Input; readonly output: Output } | undefined
    /** Writes the JSON Schema of what goes in. */
    readonly jsonSchema?: { readonly input: (options: { target: string }) => Record<string, unknown> }
  }
}

type StandardResult<Output> =
  | { readonly value: Output; readonly issues?: undefined }
  | { readonly issues: readonly { readonly message: string; readonly path?: readonly unknown[] | undefined }[] }

/**
 * The type of the values that a schema describes: a Standard Schema's output, TypeBox's `static`, or by JSON Schema.
 */
export type SchemaValue<S> = S extends { readonly '~standard': { readonly types?: infer Types } }
  ? NonNullable<Types> extends { readonly output: infer Output }
    ? Output
    : unknown
  : S extends { static: infer Static }
    ? Static
    : JsonSchemaValue<S>

/** The type of the values of a JSON Schema given as a literal; what is not modelled here is `unknown`. */
export type JsonSchemaValue<S> = S extends { readonly const: infer Value }
  ? Value
  : S extends { readonly enum: readonly (infer Value)[] }
    ? Value
    : S extends { readonly anyOf: readonly (infer Part)[] } | { readonly oneOf: readonly (infer Part)[] }
      ? JsonSchemaValue<Part>
      : S extends { readonly type: readonly (infer Type)[] }
        ? Type extends string
          ? TypedValue<Type, S>
          : unknown
        : S extends { readonly type: infer Type extends string }
          ? TypedValue<Type, S> | (S extends { readonly nullable: true } ? null : never)
          : unknown

type TypedValue<Type extends string, S> = Type extends 'string'
  ? string
  : Type extends 'number' | 'integer'
    ? number
    : Type extends 'boolean'
      ? boolean
      : Type extends 'null'
        ? null
        : Type extends 'array'
          ? ArrayValue<S>
          : Type extends 'object'
            ? ObjectValue<S>
            : unknown

type ArrayValue<S> = S extends { readonly prefixItems: infer Items extends readonly unknown[] }
  ? { -readonly [K in keyof Items]: JsonSchemaValue<Items[K]> }
  : S extends { readonly items: infer Item }
    ? JsonSchemaValue<Item>[]
    : unknown[]

type ObjectValue<S> = S extends { readonly properties: infer Properties }
  ? { -readonly [K in keyof Properties & RequiredName<S>]: JsonSchemaValue<Properties[K]> } & {
      -readonly [K in Exclude<keyof Properties, RequiredName<S>>]?: JsonSchemaValue<Properties[K]>
    }
  : S extends { readonly additionalProperties: infer Value extends object }
    ? Record<string, JsonSchemaValue<Value>>
    : Record<string, unknown>
type RequiredName<S> = S extends { readonly required: readonly (infer Name)[] } ? Name : never

/** Whether a value brings the common interface; arktype's types are functions. */
export function isStandardSchema(value: unknown): value is StandardSchema {
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null) return false
  const standard: unknown = (value as { '~standard'?: unknown })['~standard']
  return typeof standard === 'object' && standard !== null
}

// z.toJSONSchema hangs the common interface of its schema onto what it writes, which is a JSON Schema nevertheless.
const isJsonSchema = (schema: object): boolean => Object.hasOwn(schema, '$schema')

/**
 * The JSON Schema of what goes into a schema (before its defaults and transforms), or the JSON Schema that was given.
 * @throws PaliGemmaError ERR_INVALID_OPTION where the library cannot say
 */
export function toJsonSchema(schema: unknown): JsonSchema {
  if (!isStandardSchema(schema) || isJsonSchema(schema)) {
    if (typeof schema !== 'object' || schema === null || Array.isArray(schema))
      throw wrongOption('schema', 'a JSON Schema or a Standard Schema (zod, valibot, arktype, ...)', schema)
    return schema as JsonSchema
  }
  const { vendor, jsonSchema } = schema['~standard']
  try {
    if (typeof jsonSchema?.input === 'function') return jsonSchema.input({ target: 'draft-2020-12' })
    const own = schema as { toJSONSchema?: unknown; toJsonSchema?: unknown }
    if (typeof own.toJSONSchema === 'function') return own.toJSONSchema({ io: 'input' }) as JsonSchema
    if (typeof own.toJsonSchema === 'function') return own.toJsonSchema() as JsonSchema
  } catch (error) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `${vendor} cannot write the schema as JSON Schema: ${isError(error) ? error.message : String(error)}`,
      { cause: error }
    )
  }
  throw new PaliGemmaError(
    'ERR_INVALID_OPTION',
    `This schema of ${vendor} does not give its JSON Schema. Pass it beside: { schema, jsonSchema: ... }, made by ` +
      'z.toJSONSchema(schema) for zod, by toJsonSchema(schema) of @valibot/to-json-schema for valibot'
  )
}
