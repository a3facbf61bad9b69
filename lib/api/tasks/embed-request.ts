/** What a model of retrieval is asked for a page's or a query's vectors. */
import type { NativeRequest } from '../../engine/native'
import type { RetrievalFlavour } from '../../retrieval/vectors'
import { withoutPlaceholders } from '../options/prompts'

const queryPads = 10

/**
 * The prompt of a page; undefined `query` asks for it. colpali-engine writes two `<bos>` before a page's text and no
 * newline after a query; transformers' port one, and "Question: " before the query.
 */
export function embedRequest(
  flavour: RetrievalFlavour,
  query?: string
): Required<Pick<NativeRequest, 'prompt' | 'embed'>> {
  const theirs = flavour === 'transformers'
  if (query === undefined)
    return { prompt: 'Describe the image.', embed: { bosTokens: theirs ? 1 : 2, padTokens: 0, newline: true } }
  const text = withoutPlaceholders(query, 0)
  return {
    prompt: theirs ? `Question: ${text}` : text,
    embed: { bosTokens: 1, padTokens: queryPads, newline: theirs }
  }
}

/** What the tokens of a query's request stand for, given the texts of its prompt's tokens. */
export function queryTexts({ embed }: Pick<Required<NativeRequest>, 'embed'>, prompt: readonly string[]): string[] {
  return [
    ...Array<string>(embed.bosTokens).fill('<bos>'),
    ...prompt,
    ...Array<string>(embed.padTokens).fill('<pad>'),
    ...(embed.newline ? ['\n'] : [])
  ]
}
