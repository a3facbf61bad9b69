/** JSON Schema to a regular expression for the engine. */
import { PaliGemmaError } from '../../base/errors'
import { isError } from '../../base/realms'
import { Turns } from '../../base/turns'
import { Translator } from './translate'

/**
 * The part of JSON Schema that a generated text can be held to, as zod, Pydantic, TypeBox, valibot and arktype write
 * it: the table in docs/constraints.md. Annotations (`title`, `description`, `default`, `examples`, ...) are ignored.
 * Anything else is refused by name.
 */
export interface JsonSchema {
  [keyword: string]: unknown
}

/** Getters and proxies of the schema may throw anything. */
function failure(error: unknown): PaliGemmaError {
  if (error instanceof PaliGemmaError) return error
  const reason = isError(error) ? error.message : String(error)
  return new PaliGemmaError('ERR_INVALID_OPTION', `jsonSchema: reading it failed: ${reason}`, { cause: error })
}

/**
 * The expression of all JSON texts that a schema allows, written without spaces (as `JSON.stringify` does) and with
 * properties in the schema's order; the syntax is that of native/text/regex.h. In slices, so that the event loop goes
 * on.
 * @throws PaliGemmaError ERR_INVALID_OPTION naming the place in the schema
 */
export async function schemaToRegex(schema: JsonSchema): Promise<string> {
  try {
    const steps = new Translator(schema).all()
    for (const turns = new Turns(); ; ) {
      const { done, value } = steps.next()
      if (done) return value
      if (turns.due) await turns.next()
    }
  } catch (error) {
    throw failure(error)
  }
}
