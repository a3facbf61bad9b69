/** Examples in every form that `fit` takes, as one list. */
import { createHash } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { PaliGemmaError } from '../base/errors'
import { iteratorOf } from '../base/iterate'
import { workingFolder } from '../base/paths'
import { isUint8Array, isUrl } from '../base/realms'
import { check, readFields, rule, take, takeList, wrongOption } from '../base/validate'
import type { ImageInput } from '../images/image-input'
import { imagesRule, takeImage } from '../images/image-rule'

/** One example: `prompt` and `response` may be called `prefix` and `suffix`, as in PaliGemma's data sets. */
export interface FitExample {
  /** The picture. Either this or `images`; neither for text alone. */
  image?: ImageInput | undefined
  /** Several pictures, in order. */
  images?: ImageInput[] | undefined
  /** What is asked. */
  prompt?: string | undefined
  /** Another name for `prompt`; one of the two. */
  prefix?: string | undefined
  /** What the model shall answer; the end token is added. */
  response?: string | undefined
  /** Another name for `response`; one of the two. */
  suffix?: string | undefined
}

/** Lists that belong together: the i-th picture (or pictures), prompt and response are one example. */
export interface FitLists {
  /** For each response a picture, or a list of them; none for text alone. One by itself is that of one response. */
  images?: ImageInput | readonly (ImageInput | readonly ImageInput[])[] | undefined
  /** One prompt may serve all. */
  prompts: string | readonly string[]
  /** What the model shall answer; the end token is added. */
  responses: string | readonly string[]
}

/** What `fit` learns from: examples, or lists of their parts; an iterable is read to its end before the first step. */
export type FitExamples = FitLists | Iterable<FitExample> | AsyncIterable<FitExample>

export interface TakenExample {
  images: ImageInput[]
  prompt: string
  response: string
  /** "examples[3]", for messages. */
  name: string
}

const mostExamples = 10_000_000
const longestPath = 4096 // beyond it is base64

/**
 * All examples, checked. Pictures are not read yet, so a list of paths takes little; what is given as bytes stays in
 * memory.
 * @throws PaliGemmaError ERR_INVALID_OPTION that names the example
 */
export async function takeExamples(
  option: string,
  given: unknown,
  signal?: AbortSignal,
  folder = workingFolder()
): Promise<TakenExample[]> {
  const list: TakenExample[] = []
  const add = (example: unknown): void => {
    if (list.length === mostExamples) throw wrongOption(option, `at most ${mostExamples} examples`, 'more')
    list.push(takeExample(example, `${option}[${list.length}]`, folder))
  }
  const source = sourceOf(option, given)
  if (Array.isArray(source)) for (const example of source) add(example)
  else
    for await (const example of { [Symbol.asyncIterator]: () => iteratorOf(source, option) }) {
      signal?.throwIfAborted()
      add(example)
    }
  if (list.length === 0) throw wrongOption(option, 'at least one example', given)
  return list
}

const expected = 'array (or iterable) of { image, prompt, response }, or { images, prompts, responses }'

function sourceOf(option: string, given: unknown): Iterable<unknown> | AsyncIterable<unknown> {
  const isList = typeof given === 'object' && given !== null && !ArrayBuffer.isView(given)
  if (!isList) throw wrongOption(option, expected, given)
  try {
    const list = takeList(given, mostExamples, Infinity)
    if (Array.isArray(list)) return list as unknown[]
    if (Symbol.asyncIterator in given) return given as AsyncIterable<unknown>
    if (Symbol.iterator in given) return given as Iterable<unknown>
  } catch (cause) {
    throw wrongOption(option, expected, given, cause)
  }
  return fromLists(option, given)
}

function takeExample(value: unknown, name: string, folder: string): TakenExample {
  const fields = readFields(name, value, ['image', 'images', 'prompt', 'prefix', 'response', 'suffix'], exampleForm)
  const text = (one: string, other: string): string => {
    if (fields[one] !== undefined && fields[other] !== undefined) throw wrongOption(name, `${one} or ${other}`, 'both')
    const found = fields[one] ?? fields[other]
    check(`${name}.${one}`, found ?? null, rule.text)
    return found as string
  }
  return {
    images: picturesOf(fields, name, folder),
    prompt: text('prompt', 'prefix'),
    response: text('response', 'suffix'),
    name
  }
}

function picturesOf({ image, images }: Record<string, unknown>, name: string, folder: string): ImageInput[] {
  if (image !== undefined && images !== undefined) throw wrongOption(name, 'image or images', 'both')
  try {
    if (image !== undefined) return [takeImage(image, folder)]
    return images === undefined ? [] : (take('images', images, imagesRule, folder) as ImageInput[])
  } catch (error) {
    if (!(error instanceof PaliGemmaError)) throw error
    throw new PaliGemmaError(error.code, `${name}: ${error.message}`, { cause: error })
  }
}

const exampleForm = '{ image | images, prompt | prefix, response | suffix }'

function* fromLists(option: string, given: object): Iterable<FitExample> {
  const fields = readFields(option, given, ['images', 'prompts', 'responses'], expected)
  // copies: holes are not looked at, and nobody changes them meanwhile
  const [images, prompts, responses] = ['images', 'prompts', 'responses'].map((n) =>
    takeList(fields[n], mostExamples, Infinity)
  )
  const answers = typeof responses === 'string' ? [responses] : responses
  if (!Array.isArray(answers)) throw wrongOption(`${option}.responses`, 'string or array of strings', responses)
  const texts = typeof prompts === 'string' ? answers.map(() => prompts) : prompts
  if (!Array.isArray(texts)) throw wrongOption(`${option}.prompts`, 'string or array of strings', prompts)
  const pictures: unknown[] | undefined =
    images === undefined ? undefined : Array.isArray(images) ? (images as unknown[]) : [images]
  for (const [name, list] of [
    ['prompts', texts],
    ['images', pictures ?? texts]
  ] as const) {
    if (list.length !== answers.length)
      throw new PaliGemmaError(
        'ERR_INVALID_OPTION',
        `Expected as many ${name} as responses in ${option} but received ${list.length} and ${answers.length}`
      )
  }
  for (const [i, response] of answers.entries()) {
    const picture = pictures?.[i]
    yield {
      ...(Array.isArray(picture) ? { images: picture as ImageInput[] } : { image: picture as ImageInput | undefined }),
      prompt: texts[i] as string,
      response: response as string
    }
  }
}

/**
 * What tells one list of examples from another: a run that goes on must see the same. Of pictures in files, name and
 * size.
 */
export async function fingerprint(examples: readonly TakenExample[]): Promise<string> {
  const hash = createHash('sha256')
  const sizes = new Map<string, number>()
  for (const { images, prompt, response } of examples) {
    hash.update(JSON.stringify([prompt, response, images.length]))
    for (const image of images) {
      hash.update(identity(image))
      if (typeof image !== 'string' || image.length > longestPath) continue
      let size = sizes.get(image)
      // what is no file says so when its turn comes
      if (size === undefined) sizes.set(image, (size = (await stat(image).catch(() => undefined))?.size ?? -1))
      hash.update(String(size))
    }
  }
  return hash.digest('hex').slice(0, 32)
}

function identity(image: unknown): string | Uint8Array {
  if (typeof image === 'string') return image
  if (isUint8Array(image)) return image
  if (isUrl(image)) return image.href
  const { data, width, height } = image as { data?: unknown; width?: number; height?: number }
  if (ArrayBuffer.isView(data)) return new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  return `${width}x${height}`
}
