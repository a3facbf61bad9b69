/** What a `$ref` leads to: a JSON pointer into the root, or the name or `$id` of a definition. */
import { show } from '../../base/validate'
import { keysOf } from '../../formats/long-json'
import { fail, isPlain, type JsonSchemaObject, members } from './read'
import type { Work } from './work'

const mostCharacters = 1000

export class References {
  /** Definitions by name and `$id`: made once, as a schema may refer to each of thousands. */
  #named: Map<string, unknown> | undefined

  constructor(readonly root: unknown) {}

  *find(reference: unknown, path: string): Work<unknown> {
    const wrong = (): never =>
      fail(
        `${path}.$ref`,
        `expected a reference such as "#/$defs/name" to something in $defs but received ${show(reference)}`
      )
    if (typeof reference !== 'string' || reference.length > mostCharacters) return wrong()
    if (!reference.startsWith('#')) {
      this.#named ??= yield* this.#names()
      return this.#named.has(reference) ? this.#named.get(reference) : wrong()
    }
    if (reference === '#') return this.root
    return reference.startsWith('#/') ? this.#at(reference.slice(2).split('/'), wrong) : wrong()
  }

  #at(pointer: string[], wrong: () => never): unknown {
    let at = this.root
    for (const part of pointer) {
      let name = part
      try {
        name = decodeURIComponent(part)
      } catch {
        // not an encoded pointer: as it stands
      }
      name = name.replaceAll('~1', '/').replaceAll('~0', '~')
      if (typeof at !== 'object' || at === null || !Object.hasOwn(at, name)) return wrong()
      at = (at as JsonSchemaObject)[name]
    }
    return at
  }

  *#names(): Work<Map<string, unknown>> {
    const found = new Map<string, unknown>()
    for (const name of ['$defs', 'definitions']) {
      const table = members((this.root as JsonSchemaObject)[name], name)
      const own = keysOf(table)
      for (const key of own) if (!found.has(key)) found.set(key, table[key])
      for (const [i, key] of own.entries()) {
        if (i % 500 === 0) yield
        const entry = table[key]
        const id = isPlain(entry) ? (entry as JsonSchemaObject)['$id'] : undefined
        if (typeof id === 'string' && !found.has(id)) found.set(id, entry)
      }
    }
    return found
  }
}
