/** Class numbers of labels. */
import { isName, rule, show, take } from '../../base/validate'
import { PaliGemmaError } from '../../base/errors'
import { hasArea, resultsRule, takeDrawable, type Drawable } from '../drawable'

export const classNamesRule = rule.listOf('non-empty strings', (v) => isName(v) && v.trim() !== '', {
  most: 1 << 20
})

/** Numbers in the order of `labels`, or in the order in which labels come. */
export class Classes {
  readonly #numbers = new Map<string, number>()
  readonly #closed: boolean

  /** `open`: other labels come after those. */
  constructor(labels: readonly string[] | undefined, open = labels === undefined) {
    this.#closed = !open
    for (const label of labels ?? []) this.#add(label.trim())
  }

  #add(label: string): number {
    const number = this.#numbers.get(label) ?? this.#numbers.size
    this.#numbers.set(label, number)
    return number
  }

  get names(): string[] {
    return [...this.#numbers.keys()]
  }

  /** From 0 on; `name` is for the message. */
  idOf(label: string, name: string): number {
    const known = this.#numbers.get(label.trim())
    if (known !== undefined) return known
    if (!this.#closed) return this.#add(label.trim())
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected one of labels for ${name} but received ${show(label)}; add it to labels, or leave labels out`
    )
  }
}

/** Objects among the arguments with their classes; boxes without area are left out. */
export function takeClassed(name: string, given: unknown, classes: Classes): { object: Drawable; classId: number }[] {
  return take<unknown[]>(name, given as unknown[], resultsRule).flatMap((one, i) => {
    const object = takeDrawable(`${name}[${i}]`, one)
    return hasArea(object) ? [{ object, classId: classes.idOf(object.label, `${name}[${i}].label`) }] : []
  })
}
