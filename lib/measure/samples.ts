/** Pictures and prompts to measure a model with: what importance matrices and quality reports run over. */
import { readFile } from 'node:fs/promises'
import { loadRules } from '../api/options/options'
import { PaliGemmaError } from '../base/errors'
import type { ImageInput } from '../images/image-input'
import { takeImage } from '../images/image-rule'
import { check, isText, readFields, rule, takeList, type Rule } from '../base/validate'

/** A prompt for every picture, with the answer that is right for all of them where there is one. */
export interface SamplePrompt {
  /** As for `generate`. */
  prompt: string
  /** The right answer; without one, the model's own is taken. */
  answer?: string | undefined
}

export interface Sample extends SamplePrompt {
  image: ImageInput
}

export const samplesRule: Rule = {
  expected: 'non-empty array of strings or { prompt: string, answer?: string }',
  take: (v) => {
    const list = takeList(v)
    return Array.isArray(list) ? list.map((item, i) => takePrompt(`prompts[${i}]`, item)) : list
  },
  accepts: (v) => Array.isArray(v) && v.length > 0
}

function takePrompt(name: string, item: unknown): string | SamplePrompt {
  if (isText(item)) return item
  const { prompt, answer } = readFields(name, item, ['prompt', 'answer'], 'string or { prompt, answer? }')
  check(`${name}.prompt`, prompt, rule.text)
  if (answer !== undefined) check(`${name}.answer`, answer, rule.text)
  return { prompt: prompt as string, ...(answer !== undefined && { answer: answer as string }) }
}

export const imagesRule: Rule = {
  expected: 'non-empty array of images',
  take: (v, folder) => {
    const list = takeList(v, undefined, Infinity)
    return Array.isArray(list) ? list.map((image) => takeImage(image, folder)) : list
  },
  accepts: (v) => Array.isArray(v) && v.length > 0
}

/** Options of every measure that runs a model over pictures and prompts. */
export const sampledRules = {
  model: loadRules.model,
  vision: loadRules.vision,
  device: loadRules.device,
  threads: loadRules.threads,
  contextSize: loadRules.contextSize,
  attentionWindow: loadRules.attentionWindow,
  resize: loadRules.resize,
  fit: loadRules.fit,
  signal: loadRules.signal,
  onProgress: loadRules.onProgress,
  images: imagesRule,
  prompts: samplesRule
}

/** Every prompt about every picture. */
export function samplesOf(images: ImageInput[], prompts: (string | SamplePrompt)[]): Sample[] {
  return images.flatMap((image) =>
    prompts.map((prompt) => ({ image, ...(typeof prompt === 'string' ? { prompt } : prompt) }))
  )
}

/**
 * Prompts of a text file: one a line, its answer after a tab if there is one; empty lines and lines starting with # are
 * skipped.
 * @throws PaliGemmaError ERR_INVALID_OPTION where it cannot be read or holds none
 */
export async function readPrompts(path: string): Promise<SamplePrompt[]> {
  const text = await readFile(path, 'utf8').catch((cause: Error) => {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected a text file that can be read for prompts but received ${path}: ${cause.message}`,
      { cause }
    )
  })
  const prompts = text
    .split(/\r?\n/)
    .filter((line) => line.trim() !== '' && !line.startsWith('#'))
    .map((line): SamplePrompt => {
      const [prompt, ...answer] = line.split('\t')
      return { prompt: prompt!, ...(answer.length > 0 && { answer: answer.join('\t') }) }
    })
  if (prompts.length === 0)
    throw new PaliGemmaError('ERR_INVALID_OPTION', `Expected at least one prompt but ${path} holds none`)
  return prompts
}
