/** What a loaded model is. */
import type { NativeModelInfo } from '../engine/native'
import type { RetrievalFlavour } from '../retrieval/vectors'
import { type AdapterInfo, toAdapterInfo } from './adapters'

/** Of {@link PaliGemma.info}. */
export interface LoadedModelInfo {
  architecture: 'paligemma' | 'paligemma2'
  /** "3b-224", "10b-448", "28b-896"; other sizes: "custom". */
  variant: string
  /** The file's own name, or ''. */
  name: string
  /** The type that holds most of the weights: "Q4_K", "BF16", ... */
  quantization: string
  /** Weights of the model, the mask decoder's not counted. */
  parameters: number
  /** Of the model files. */
  bytes: number
  /** Width and height in pixels that pictures are resized to; 0 without vision. */
  imageSize: number
  /** Tokens per picture. */
  imageTokens: number
  textLayers: number
  textHidden: number
  visionLayers: number
  visionHidden: number
  vocab: number
  /** Tokens per sequence, images included. */
  contextSize: number
  hasVision: boolean
  hasMaskDecoder: boolean
  /** `embedImage` and `embedText` work. */
  hasRetrieval: boolean
  /** Whose prompts these calls write unless told otherwise: what the file says, else "colpali-engine". */
  retrievalFlavour: RetrievalFlavour
  /** LoRA adapters that were loaded with the model. */
  adapters: AdapterInfo[]
  /** How pictures are resized. */
  resize: 'bicubic' | 'bilinear'
  /** "cpu", "cuda" or "metal". */
  device: string
  /** Instruction set in use, such as "avx2". */
  isa: string
  threads: number
}

// Published sizes (transformers' conversion scripts).
const sizes: Record<string, string> = {
  'gemma 18 2048': '3b',
  'gemma2 26 2304': '3b',
  'gemma2 42 3584': '10b',
  'gemma2 46 4608': '28b'
}

export function toInfo(info: NativeModelInfo, resize: 'bicubic' | 'bilinear' | undefined): LoadedModelInfo {
  const size = sizes[`${info.architecture} ${info.textLayers} ${info.textHidden}`]
  return {
    architecture: info.architecture === 'gemma' ? 'paligemma' : 'paligemma2',
    variant: size ? `${size}${info.imageSize ? `-${info.imageSize}` : ''}` : 'custom',
    name: info.name,
    quantization: info.quantization,
    parameters: info.parameters,
    bytes: info.bytes,
    imageSize: info.imageSize,
    imageTokens: info.imageTokens,
    textLayers: info.textLayers,
    textHidden: info.textHidden,
    visionLayers: info.visionLayers,
    visionHidden: info.visionHidden,
    vocab: info.vocab,
    contextSize: info.contextSize,
    hasVision: info.hasVision,
    hasMaskDecoder: info.hasMaskDecoder,
    hasRetrieval: info.hasRetrieval,
    retrievalFlavour: info.retrievalFlavour === 'transformers' ? 'transformers' : 'colpali-engine',
    adapters: info.adapters.map(toAdapterInfo),
    resize: resize ?? info.resizeFilter,
    device: info.device,
    isa: info.isa,
    threads: info.threads
  }
}
