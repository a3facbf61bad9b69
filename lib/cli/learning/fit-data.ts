/** Checks of training data before hours are spent on it. */
import type { PaliGemma } from '../../api/model'
import { preprocessImage } from '../../images/preprocess'
import { type FileExample, responseProblem } from '../../train/data-file'

export interface Finding {
  file: string
  line: number
  problem: string
}

interface Checked {
  findings: Finding[]
  longest: { example: FileExample; tokens: number }
}

/** Every example: its pictures are decoded, its tokens counted, its answer looked at. */
export async function checkData(
  model: PaliGemma,
  file: string,
  examples: readonly FileExample[],
  signal: AbortSignal,
  onProgress: (fraction: number) => void
): Promise<Checked> {
  const findings: Finding[] = []
  const pictures = new Map<string, Promise<string | undefined>>()
  let longest = { example: examples[0]!, tokens: 0 }
  for (const [i, example] of examples.entries()) {
    signal.throwIfAborted()
    const add = (problem: string): unknown => findings.push({ file, line: example.line, problem })
    for (const image of example.images) {
      // one picture may have many questions
      if (!pictures.has(image)) pictures.set(image, pictureProblem(model, image, signal))
      const problem = await pictures.get(image)
      if (problem !== undefined) add(problem)
    }
    const tokens = tokensOf(model, example)
    if (tokens > model.info.contextSize)
      add(`has ${tokens} tokens, but the context has ${model.info.contextSize} (--context-size)`)
    else if (tokens > longest.tokens) longest = { example, tokens }
    const problem = responseProblem(example.response)
    if (problem !== undefined) add(problem)
    onProgress((i + 1) / examples.length)
  }
  return { findings, longest }
}

async function pictureProblem(model: PaliGemma, image: string, signal: AbortSignal): Promise<string | undefined> {
  try {
    await preprocessImage(image, { size: model.info.imageSize, signal })
    return undefined
  } catch (error) {
    if (signal.aborted) throw error
    return (error as Error).message
  }
}

/** Pictures, <bos>, prompt, newline, response, <eos>. */
function tokensOf(model: PaliGemma, { images, prompt, response }: FileExample): number {
  const text = model.tokenize(prompt.replace(/\n+$/, '')).length + model.tokenize(response).length
  return images.length * model.info.imageTokens + text + 3
}
