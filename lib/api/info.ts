/** What a loaded model is. */
import type { ModelFacts, NativeModelInfo } from '../engine/native'
import type { RetrievalFlavour } from '../retrieval/vectors'
import { type AdapterInfo, toAdapterInfo } from './options/adapters'

/** Of {@link PaliGemma.info}. */
export interface LoadedModelInfo extends ModelFacts {
  /** "paligemma": over Gemma 1; "paligemma2": over Gemma 2. */
  architecture: 'paligemma' | 'paligemma2'
  /** "3b-224", "10b-448", "28b-896"; other sizes: "custom". */
  variant: string
  /** Whose prompts `embedImage` and `embedText` write unless told: as the file says, else "colpali-engine". */
  retrievalFlavour: RetrievalFlavour
  /** LoRA adapters that were loaded with the model. */
  adapters: AdapterInfo[]
  /** How pictures are resized. */
  resize: 'bicubic' | 'bilinear'
}

// Published sizes (transformers' conversion scripts).
const sizes: Record<string, string> = {
  'gemma 18 2048': '3b',
  'gemma2 26 2304': '3b',
  'gemma2 42 3584': '10b',
  'gemma2 46 4608': '28b'
}

export function toInfo(info: NativeModelInfo, resize: 'bicubic' | 'bilinear' | undefined): LoadedModelInfo {
  const { architecture, retrievalDims: _, retrievalFlavour, adapters, resizeFilter, ...facts } = info
  const size = sizes[`${architecture} ${facts.textLayers} ${facts.textHidden}`]
  return {
    architecture: architecture === 'gemma' ? 'paligemma' : 'paligemma2',
    variant: size ? `${size}${facts.imageSize ? `-${facts.imageSize}` : ''}` : 'custom',
    ...facts,
    retrievalFlavour: retrievalFlavour === 'transformers' ? 'transformers' : 'colpali-engine',
    adapters: adapters.map(toAdapterInfo),
    resize: resize ?? resizeFilter
  }
}

/** Of {@link PaliGemma.stats}. */
export interface ModelStats {
  /** Calls that run or wait. */
  requests: number
  /** Pages of the KV cache in use: by requests that run, and by prefixes kept for those that ask the same again. */
  kvPagesUsed: number
  /** The most that there may be, for `maxSequences` of `contextSize` tokens and kept prefixes. */
  kvPages: number
  /** Tokens that a page holds. */
  kvPageTokens: number
}
