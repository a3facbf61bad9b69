/** What a generated text may be: the user's forms, their checks, and the addon's form. */
import { schemaToRegex, type JsonSchema } from './schema/json-schema'
import { isStandardSchema, toJsonSchema, type StandardSchema } from './schema/standard-schema'
import type { NativeRequest } from '../engine/native'
import { isRecord, isRegExp } from '../base/realms'
import { isText, rule, wrongOption, type Rule } from '../base/validate'

/** The grammar of `detect` or `segment`. */
export interface TaskConstraint {
  /** "detect": locations and names; "segment": mask codes between the two as well. */
  kind: 'detect' | 'segment'
  /** The names that may follow a location; default: any text. */
  labels?: string[] | undefined
  /** Stop after so many objects; default: no limit. */
  maxObjects?: number | undefined
}

/** One of these texts, exactly. */
export interface ChoicesConstraint<Choice extends string = string> {
  /** 1 to 10,000 texts that are not empty. */
  choices: readonly Choice[]
}

/**
 * A text that matches as a whole. A string, or a `RegExp` without flags (or with "u"). Supported: characters, `.`,
 * classes, `\d \w \s \D \W \S` (ASCII), groups, `|`, `? * + {m} {m,} {m,n}`, `\t \n \r \f \v \0 \xHH \uHHHH \u{H}`,
 * lookaheads outside of repetitions. Lookbehind, back references, `\b`, `\B` and `\p` are refused with their position.
 */
export interface RegexConstraint {
  /** `^` at its beginning and `$` at its end change nothing. */
  regex: string | RegExp
}

/**
 * A JSON text of this schema, without spaces and with properties in the schema's order. See {@link JsonSchema}. A
 * Standard Schema (zod, arktype, ...) that gives its JSON Schema may stand here too.
 */
export interface JsonSchemaConstraint {
  /** What is not supported is refused with ERR_INVALID_OPTION that names it. */
  jsonSchema: JsonSchema | StandardSchema
}

/** What generated text may be. Tokens that would leave it cannot be picked, whatever the model would like to say. */
export type Constraint = TaskConstraint | ChoicesConstraint | RegexConstraint | JsonSchemaConstraint

const maxChoices = 10_000

/** Of `choices`, here and in `answer`. */
export const choicesRule: Rule = {
  ...rule.listOf('strings', (item) => isText(item) && item !== '', { least: 1, most: maxChoices }),
  expected: `non-empty array of at most ${maxChoices} non-empty strings`
}

const forms: Record<string, Record<string, Rule>> = {
  kind: {
    kind: rule.oneOf('detect', 'segment'),
    labels: rule.listOf('non-empty strings', (v) => typeof v === 'string' && v.trim() !== ''),
    maxObjects: rule.integer(1, 65535)
  },
  choices: { choices: choicesRule },
  regex: { regex: { expected: 'string or RegExp', accepts: (v) => isText(v) || isRegExp(v) } },
  jsonSchema: { jsonSchema: { expected: 'object', accepts: (v) => isRecord(v) || isStandardSchema(v) } }
}

export const constraintRule: Rule = {
  expected:
    '"detect", "segment", { kind: "detect" | "segment", labels?: string[], maxObjects?: integer >= 1 }, { choices: ' +
    'string[] }, { regex: string | RegExp } or { jsonSchema: object }',
  accepts: (v) => {
    if (v === 'detect' || v === 'segment') return true
    if (!isRecord(v)) return false
    const given = Object.entries(v).filter(([, value]) => value !== undefined)
    const form = Object.keys(forms).find((name) => given.some(([key]) => key === name))
    return (
      form !== undefined &&
      given.every(([name, value]) => Object.hasOwn(forms[form]!, name) && forms[form]![name]!.accepts(value))
    )
  }
}

/**
 * The constraint as the addon takes it.
 * @throws PaliGemmaError ERR_INVALID_OPTION for schemas and flags that are not supported
 */
export async function toNativeConstraint(
  constrain: 'detect' | 'segment' | Constraint | undefined
): Promise<NativeRequest['constraint']> {
  if (constrain === undefined) return undefined
  if (typeof constrain === 'string') return { kind: constrain, labels: [] }
  if ('choices' in constrain && constrain.choices !== undefined)
    return { kind: 'choices', choices: [...constrain.choices] }
  if ('jsonSchema' in constrain && constrain.jsonSchema !== undefined)
    return { kind: 'schema', pattern: await schemaToRegex(toJsonSchema(constrain.jsonSchema)) }
  if ('regex' in constrain && constrain.regex !== undefined) {
    const { regex } = constrain
    if (typeof regex === 'string') return { kind: 'regex', pattern: regex }
    if (regex.flags.replace('u', '') !== '')
      throw wrongOption('constrain.regex', 'RegExp without flags other than "u"', String(regex))
    return { kind: 'regex', pattern: regex.source }
  }
  const { kind, labels = [], maxObjects } = constrain as TaskConstraint
  return { kind, labels, ...(maxObjects !== undefined && { maxObjects }) }
}
