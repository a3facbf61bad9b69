/** `generateObject`: output held to a schema, parsed and checked. */
import { incomplete, PaliGemmaError } from '../../base/errors'
import { publicCall } from '../../base/call'
import { rule, type Rules } from '../../base/validate'
import type { ModelHost } from '../request/host'
import type { JsonSchema } from '../../output/schema/json-schema'
import {
  isStandardSchema,
  toJsonSchema,
  type SchemaValue,
  type StandardSchema
} from '../../output/schema/standard-schema'
import { runGeneration } from '../request/generation'
import { defaults, generateRules, type GenerateOptions } from '../options/options'

/** Options of `generateObject`: those of `generate` with a schema in place of `constrain`. */
export interface ObjectOptions<Schema = StandardSchema | JsonSchema> extends Omit<GenerateOptions, 'constrain'> {
  /** A JSON Schema, or a Standard Schema such as zod's, valibot's or arktype's, whose own checks are made too. */
  schema: Schema
  /** The JSON Schema of `schema`, for libraries whose schemas do not give it themselves. */
  jsonSchema?: JsonSchema | undefined
  /** At most so many tokens; default 512. */
  maxTokens?: number | undefined
}

const schemaRule = {
  expected: 'a JSON Schema or a Standard Schema (zod, valibot, arktype, ...)',
  accepts: (v: unknown) => isStandardSchema(v) || (typeof v === 'object' && v !== null && !Array.isArray(v))
}
const { constrain: _, ...sharedRules } = generateRules
const objectRules: Rules<ObjectOptions> = {
  ...sharedRules,
  schema: schemaRule,
  jsonSchema: schemaRule,
  prompt: rule.text
}

/** {@link PaliGemma.generateObject} */
export async function generateObject<const Schema>(
  host: ModelHost,
  options: ObjectOptions<Schema>
): Promise<SchemaValue<Schema>> {
  return await publicCall<ObjectOptions, SchemaValue<Schema>>(
    'generateObject',
    options,
    objectRules,
    ['prompt', 'schema'],
    async ({ schema, jsonSchema = toJsonSchema(schema), maxTokens = defaults.detectMaxTokens, ...generating }) => {
      const request = { ...generating, maxTokens, constrain: { jsonSchema } }
      const { text, finishReason } = (await runGeneration(host, request)).result
      const value = finishReason === 'stop' ? parsed(text) : undefined
      if (!value) throw incomplete('a whole JSON text', text)
      return (await validated(schema, value.json, text)) as SchemaValue<Schema>
    }
  )
}

/** undefined: no JSON, cut by a stop string. */
function parsed(text: string): { json: unknown } | undefined {
  try {
    return { json: JSON.parse(text) }
  } catch {
    return undefined
  }
}

/** What the schema makes of the value: its defaults and transforms are applied. What it throws passes unchanged. */
async function validated(schema: unknown, value: unknown, text: string): Promise<unknown> {
  const validate = isStandardSchema(schema) ? schema['~standard'].validate : undefined
  if (!validate) return value
  const result = await validate(value)
  if (!result.issues) return result.value
  const shown = result.issues.slice(0, 3).map(({ message, path = [] }) => {
    const keys = path.map((part) => (typeof part === 'object' && part !== null && 'key' in part ? part.key : part))
    return keys.length === 0 ? message : `${keys.map(String).join('.')}: ${message}`
  })
  throw new PaliGemmaError(
    'ERR_OUTPUT_INVALID',
    `The schema refuses what the model wrote (${shown.join('; ')}). Checks that JSON Schema cannot express do not ` +
      'hold the model: try again with temperature > 0, or loosen them',
    { cause: result.issues, text }
  )
}
