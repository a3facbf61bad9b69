/** Objects of a picture as the prompts and answers of `detect` and `segment`. */
import { encodeLocation } from '../output/parse'
import type { DataRow, TruthObject } from '../train/data-file'

export interface Labelled {
  label: string
  /** y0, x0, y1, x1 in 0..1. */
  box: [number, number, number, number]
  /** Of `segment`: 16. */
  codes?: number[]
  truth?: TruthObject
}

export interface LabelledPicture {
  image: string
  width?: number | undefined
  height?: number | undefined
  objects: Labelled[]
  /** Groups and whatever else is not asked for, but counts where results are judged. */
  ignored?: TruthObject[]
}

/** What a label must not hold, since it would end it: in words, or undefined. */
export function labelProblem(label: string): string | undefined {
  if (label.trim() === '') return 'the name of its class is empty'
  return /[;<>\r\n]/.test(label)
    ? `the name ${JSON.stringify(label)} holds ";", "<", ">" or a line break, which would end it in the model's answers`
    : undefined
}

/** The tokens of a box, clipped to the picture; undefined where nothing of it is inside. */
export function clipped([y0, x0, y1, x1]: Labelled['box']): Labelled['box'] | undefined {
  const inside = [y0, x0, y1, x1].map((side) => Math.min(Math.max(side, 0), 1)) as Labelled['box']
  return inside[2] > inside[0] && inside[3] > inside[1] ? inside : undefined
}

function answerOf(objects: readonly Labelled[]): string {
  return objects
    .map(({ box, codes = [], label }) => {
      const places = box.map((side) => encodeLocation(side)).join('')
      return `${places}${codes.map((code) => `<seg${String(code).padStart(3, '0')}>`).join('')} ${label}`
    })
    .join(' ; ')
}

/**
 * The rows of a picture: one that asks for all its labels in the order of `names`, or one for each label. None where
 * nothing is on it.
 */
export function rowsOf(
  { image, width, height, objects, ignored = [] }: LabelledPicture,
  { task, per, names, truth }: { task: string; per: string; names: readonly string[]; truth: boolean }
): DataRow[] {
  const present = names.filter((name) => objects.some(({ label }) => label === name))
  const groups = per === 'label' ? present.map((name) => [name]) : present.length > 0 ? [present] : []
  return groups.map((labels) => {
    const asked = labels.flatMap((name) => objects.filter(({ label }) => label === name))
    const exact = [
      ...asked.flatMap((object) => object.truth ?? []),
      ...ignored.filter(({ label }) => labels.includes(label))
    ]
    return {
      images: [image],
      prompt: `${task} ${labels.join(' ; ')}`,
      response: answerOf(asked),
      ...(truth && width !== undefined && height !== undefined && { objects: exact, width, height })
    }
  })
}
