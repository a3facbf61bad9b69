/** Sizes of the models that `bench --synthetic` can make up: the published ones, and three that are affordable. */
import type { SourceConfig, TextConfig, VisionConfig } from '../convert/checkpoint/config'
import { PaliGemmaError } from '../base/errors'

/** A model's sizes, and the pieces of its vocabulary before the locations. */
export interface SyntheticSize {
  config: SourceConfig
  basePieces: number
}

const gemmaPieces = 256000

const common = { headDim: 256, contextLength: 8192, normEps: 1e-6, ropeTheta: 10000 }
const gemma1 = { ...common, architecture: 'gemma' as const }
const gemma2 = {
  ...common,
  architecture: 'gemma2' as const,
  queryPreAttnScalar: 256,
  attnSoftcap: 50,
  finalSoftcap: 30,
  slidingWindow: 4096
}

// transformers' conversion scripts; SigLIP is the same in every published checkpoint.
const texts: Record<string, TextConfig> = {
  '3b': { ...gemma2, hidden: 2304, ffn: 9216, layers: 26, heads: 8, kvHeads: 4 },
  '10b': { ...gemma2, hidden: 3584, ffn: 14336, layers: 42, heads: 16, kvHeads: 8 },
  '28b': {
    ...gemma2,
    hidden: 4608,
    ffn: 36864,
    layers: 46,
    heads: 32,
    kvHeads: 16,
    headDim: 128,
    queryPreAttnScalar: 144
  },
  'pg1-3b': { ...gemma1, hidden: 2048, ffn: 16384, layers: 18, heads: 8, kvHeads: 1 }
}
const so400m = { hidden: 1152, ffn: 4304, layers: 27, heads: 16, patchSize: 14, normEps: 1e-6 }
const imageSizes = [224, 448, 896]

const tinyText = { hidden: 256, ffn: 512, layers: 2, heads: 4, headDim: 64 }
const tinyVision = { hidden: 128, ffn: 250, layers: 2, heads: 2, patchSize: 14, normEps: 1e-6 }

function sized(
  text: TextConfig,
  vision: Omit<VisionConfig, 'imageSize' | 'tokens'>,
  imageSize: number,
  basePieces: number
): SyntheticSize {
  return {
    basePieces,
    config: {
      name: 'synthetic',
      text,
      vision: { ...vision, imageSize, tokens: (imageSize / vision.patchSize) ** 2 },
      bosId: 2,
      eosId: 1,
      padId: 0,
      resize: 'bicubic',
      imageMean: [0.5, 0.5, 0.5],
      imageStd: [0.5, 0.5, 0.5]
    }
  }
}

const sizes = new Map<string, SyntheticSize>()
for (const [name, text] of Object.entries(texts)) {
  for (const imageSize of imageSizes) sizes.set(`${name}-${imageSize}`, sized(text, so400m, imageSize, gemmaPieces))
}
// about a tenth of 3b-224 with layers of its widths: what a layer costs is the same, for little time and memory
sizes.set('small-224', sized({ ...texts['3b']!, layers: 3 }, { ...so400m, layers: 3 }, 224, 24576))
sizes.set('tiny', sized({ ...gemma2, ...tinyText, kvHeads: 2 }, tinyVision, 56, 1024))
sizes.set('pg1-tiny', sized({ ...gemma1, ...tinyText, kvHeads: 1 }, tinyVision, 56, 1024))

/** Every value of `--synthetic`. */
export const syntheticSizes: readonly string[] = [...sizes.keys()]

/** The size of a name; ERR_INVALID_OPTION lists the names. */
export function parseSize(name: string): SyntheticSize {
  const size = sizes.get(String(name).toLowerCase())
  if (!size)
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected one of ${syntheticSizes.join(', ')} for synthetic but received ${String(name)}`
    )
  return size
}
