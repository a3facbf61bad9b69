/** The prompts that PaliGemma was trained with, and the placeholders that processors' users write before them. */
import { PaliGemmaError } from '../../base/errors'
import { rule, take } from '../../base/validate'

const languages: readonly string[] = [
  'ar',
  'bn',
  'cs',
  'da',
  'de',
  'el',
  'en',
  'es',
  'fa',
  'fi',
  'fil',
  'fr',
  'hi',
  'hr',
  'hu',
  'id',
  'it',
  'iw',
  'ja',
  'ko',
  'mi',
  'nl',
  'no',
  'pl',
  'pt',
  'ro',
  'ru',
  'sv',
  'sw',
  'te',
  'th',
  'tr',
  'uk',
  'vi',
  'zh'
]

const isText = (v: unknown): boolean => typeof v === 'string'
const textsRule = rule.listOf('strings', isText, { least: 1 })

function list(labels: string | readonly string[]): string {
  return typeof labels === 'string' ? labels : take('labels', labels, textsRule).join(' ; ')
}

function text(name: string, value: string): string {
  return take(name, value, rule.text)
}

/**
 * Prompt strings. Source: PaliGemma's prompt page (ai.google.dev/gemma/docs/paligemma/prompt-system-instructions) and
 * the training configurations in google-research/big_vision. The newline that ends a prompt is added by the engine.
 * "pt" prompts work on pretrained checkpoints only; "mix" checkpoints also take free text.
 */
export const prompts = {
  /** "cap en": a short caption, much like alt texts (pt). */
  shortCaption: (lang = 'en'): string => `cap ${text('lang', lang)}`,
  /** "caption en": one sentence as in COCO (pt, mix). */
  caption: (lang = 'en'): string => `caption ${text('lang', lang)}`,
  /** "describe en": a longer description (pt, mix of PaliGemma 2). */
  describe: (lang = 'en'): string => `describe ${text('lang', lang)}`,
  /** "answer en where is the cow?" (pt, mix). */
  answer: (question: string, lang = 'en'): string => `answer ${text('lang', lang)} ${text('question', question)}`,
  /** "question en a cow": a question that has this answer (pt). */
  question: (answer: string, lang = 'en'): string => `question ${text('lang', lang)} ${text('answer', answer)}`,
  /** "ocr": all text in the picture (pt, mix). */
  ocr: (): string => 'ocr',
  /** "detect cow ; boat" (pt, mix). */
  detect: (labels: string | readonly string[]): string => `detect ${list(labels)}`,
  /** "segment cow ; boat" (pt, mix). */
  segment: (labels: string | readonly string[]): string => `segment ${list(labels)}`,
  /** Codes of the 35 languages of the multilingual caption data (big_vision, coco35l). */
  languages
} as const

// What stands between two placeholders is their users' layout; what follows the last one is the prompt's own.
const leadingPlaceholders = /^\s*(?:<image>|<bos>)(?:\s*(?:<image>|<bos>))*/

/**
 * The prompt without the `<image>` and `<bos>` placeholders that Hugging Face's processor wants in front: they name the
 * sequence that the engine builds anyway (pictures, one `<bos>`, text, newline). Anywhere else they are text.
 * @throws PaliGemmaError ERR_INVALID_OPTION where `<image>` is there, but not once per picture
 */
export function withoutPlaceholders(prompt: string, pictures: number): string {
  const leading = leadingPlaceholders.exec(prompt)?.[0]
  if (leading === undefined) return prompt
  const named = leading.split('<image>').length - 1
  if (named !== 0 && named !== pictures) {
    const given = pictures === 1 ? '1 picture' : `${pictures} pictures`
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `The prompt begins with ${named} <image> but ${given} came with it; write one for each picture, or none`
    )
  }
  return prompt.slice(leading.length)
}
