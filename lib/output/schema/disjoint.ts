/** Whether no text that is written for one schema can satisfy another: what `oneOf` needs. */
import { fail, type JsonSchemaObject, members, names } from './read'
import { canonical, type Steps, type Work } from './work'

/** The keywords of a schema, references followed. */
export type Flat = (schema: unknown) => Work<JsonSchemaObject>

const maxCompared = 1000

const typesOf = (schema: JsonSchemaObject): Set<string> | undefined => {
  if ('const' in schema || schema['enum'] !== undefined)
    return new Set(
      valuesOf(schema)!.map((value) => (value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value))
    )
  if (schema['type'] === undefined) return undefined
  const types = [schema['type']].flat().map((type) => (type === 'integer' ? 'number' : String(type)))
  return new Set(schema['nullable'] === true ? [...types, 'null'] : types)
}

const valuesOf = (schema: JsonSchemaObject): unknown[] | undefined =>
  'const' in schema
    ? [schema['const']]
    : Array.isArray(schema['enum'])
      ? schema['enum'].slice(0, maxCompared)
      : undefined

class Comparison {
  readonly #texts = new Map<JsonSchemaObject, Set<string>>()

  constructor(
    readonly path: string,
    readonly steps: Steps,
    readonly flat: Flat
  ) {}

  *disjoint(a: JsonSchemaObject, b: JsonSchemaObject): Work<boolean> {
    this.steps.take(this.path)
    yield
    const [types, others] = [typesOf(a), typesOf(b)]
    if (types && others && ![...types].some((type) => others.has(type))) return true
    const [texts, otherTexts] = [yield* this.#textsOf(a), yield* this.#textsOf(b)]
    if (texts && otherTexts) {
      this.steps.take(this.path, texts.size)
      for (const text of texts) if (otherTexts.has(text)) return false
      return true
    }
    if (a['properties'] === undefined || b['properties'] === undefined) return false
    return yield* this.#objects(a, b)
  }

  *#objects(a: JsonSchemaObject, b: JsonSchemaObject): Work<boolean> {
    const [first, second] = [members(a['properties'], 'oneOf'), members(b['properties'], 'oneOf')]
    const [needed, otherNeeded] = [names(a['required'], 'oneOf'), names(b['required'], 'oneOf')]
    this.steps.take(this.path, needed.length + otherNeeded.length)
    // what comes has its own properties alone
    if (otherNeeded.some((name) => !Object.hasOwn(first, name)) && needed.some((name) => !Object.hasOwn(second, name)))
      return true
    const common = new Set(otherNeeded)
    for (const name of needed) {
      if (!common.has(name) || !Object.hasOwn(first, name) || !Object.hasOwn(second, name)) continue
      const [one, other] = [yield* this.flat(first[name]), yield* this.flat(second[name])]
      if (yield* this.disjoint(one, other)) return true
    }
    return false
  }

  /** The values that a schema lists. */
  *#textsOf(schema: JsonSchemaObject): Work<Set<string> | undefined> {
    const [known, values] = [this.#texts.get(schema), valuesOf(schema)]
    if (known || !values) return known
    const texts = new Set<string>()
    for (const value of values) {
      texts.add(yield* canonical(value, this.path))
      if (texts.size % 100 === 0) yield
    }
    this.#texts.set(schema, texts)
    return texts
  }
}

export function* checkOneOf(options: JsonSchemaObject[], path: string, steps: Steps, flat: Flat): Work<void> {
  const comparison = new Comparison(path, steps, flat)
  for (const [i, a] of options.entries())
    for (const [j, b] of options.entries())
      if (j > i && !(yield* comparison.disjoint(a, b)))
        fail(
          path,
          `a value may satisfy both alternative ${i} and ${j}, which oneOf forbids; use anyOf, ` +
            'or tell them apart by type or a const property'
        )
}
