/** big_vision's npz checkpoints, as Kaggle and the "-jax" repositories host them: layers stacked, kernels [in, out]. */
import { basename } from 'node:path'
import { PaliGemmaError } from '../../base/errors'
import { NpzArchive, type NpzArray } from '../../formats/npz'
import type { SourceConfig } from './config'
import { expectedTensors } from './names'
import { type NpzShape, placeOf } from './npz-layout'
import { someOf, type SourceTensor, type WeightSource } from '../../formats/source'
import { type ArrayPlace, PartReader } from '../../formats/npz-reader'

/** NumPy's types as GGUF spells them; bfloat16 comes as two bytes that NumPy has no name for. */
const types: Record<string, string> = { f4: 'F32', f2: 'F16', V2: 'BF16' }

/**
 * Opens a checkpoint; its config follows from the arrays' shapes. Close the source when done. `scratchDir`: for one
 * layer's matrix at a time, if a compressed archive has larger ones than memory should hold.
 */
export async function openNpz(
  path: string,
  scratchDir: string
): Promise<{ config: SourceConfig; source: WeightSource }> {
  const archive = await NpzArchive.open(path)
  try {
    const arrays = modelArrays(archive)
    const size = readShape(path, arrays)
    const reader = new PartReader({ scratchDir })
    const source = new NpzSource(archive, placedTensors(path, arrays, size, reader), reader)
    return { config: configOf(path, size), source }
  } catch (error) {
    await archive.close()
    throw error
  }
}

class NpzSource implements WeightSource {
  constructor(
    private readonly archive: NpzArchive,
    readonly tensors: SourceTensor[],
    private readonly reader: PartReader
  ) {}

  async close(): Promise<void> {
    await this.reader.close()
    await this.archive.close()
  }
}

/** Training states hold the weights under `params/`, next to the optimizer's; plain archives hold nothing else. */
function modelArrays(archive: NpzArchive): Map<string, NpzArray> {
  const prefix = 'params/'
  const inside = [...archive.arrays].filter(([name]) => name.startsWith(prefix))
  return new Map(inside.length > 0 ? inside.map(([name, array]) => [name.slice(prefix.length), array]) : archive.arrays)
}

/** The arrays whose shapes tell all sizes, and how many axes they have. */
const telling: Record<string, number> = {
  'llm/embedder/input_embedding': 2,
  'llm/layers/attn/attn_vec_einsum/w': 4,
  'llm/layers/mlp/linear': 3,
  'img/embedding/kernel': 4,
  'img/pos_embedding': 3,
  'img/Transformer/encoderblock/MlpBlock_0/Dense_0/kernel': 3,
  'img/Transformer/encoderblock/MultiHeadDotProductAttention_0/query/kernel': 4
}

function readShape(path: string, arrays: Map<string, NpzArray>): NpzShape {
  const missing = Object.keys(telling).filter((name) => !arrays.has(name))
  if (missing.length > 0) {
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${path}: no PaliGemma checkpoint, it lacks ${someOf(missing)}; it holds ` +
        `${arrays.size === 0 ? 'nothing' : someOf([...arrays.keys()], 4)}`
    )
  }
  const shape = (name: string): number[] => {
    const { shape } = arrays.get(name)!
    if (shape.length !== telling[name] || shape.some((n) => n < 1)) {
      throw new PaliGemmaError(
        'ERR_MODEL_INVALID',
        `${path}: array ${name} has the shape [${shape.join(', ')}], expected ${telling[name]} axes of at least 1`
      )
    }
    return shape
  }
  const [vocab, hidden] = shape('llm/embedder/input_embedding') as [number, number]
  const [layers, heads, headDim] = shape('llm/layers/attn/attn_vec_einsum/w') as [number, number, number, number]
  const [, ffn] = shape('llm/layers/mlp/linear') as [number, number, number]
  const [patchSize, , , width] = shape('img/embedding/kernel') as [number, number, number, number]
  const [, tokens] = shape('img/pos_embedding') as [number, number, number]
  const [visionLayers, , visionFfn] = shape('img/Transformer/encoderblock/MlpBlock_0/Dense_0/kernel') as [
    number,
    number,
    number
  ]
  const [, , visionHeads] = shape('img/Transformer/encoderblock/MultiHeadDotProductAttention_0/query/kernel') as [
    number,
    number,
    number,
    number
  ]
  if (!Number.isInteger(Math.sqrt(tokens))) {
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${path}: array img/pos_embedding holds ${tokens} positions, which is no square number`
    )
  }
  const fusedQkv = arrays.has('llm/layers/attn/qkv_einsum/w')
  return {
    vocab,
    fusedQkv,
    text: {
      architecture:
        arrays.has('llm/layers/post_attention_norm/scale') || arrays.has('llm/layers/post_ffw_norm/scale')
          ? 'gemma2'
          : 'gemma',
      hidden,
      ffn,
      layers,
      heads,
      headDim,
      kvHeads: fusedQkv ? heads : (arrays.get('llm/layers/attn/kv_einsum/w')?.shape[2] ?? 1)
    },
    vision: { hidden: width, ffn: visionFfn, layers: visionLayers, heads: visionHeads, patchSize, tokens }
  }
}

/**
 * Every tensor of the model with its place; or an error that lists the arrays that are missing, unknown or misshapen.
 */
function placedTensors(
  path: string,
  arrays: Map<string, NpzArray>,
  size: NpzShape,
  reader: PartReader
): SourceTensor[] {
  const placed = expectedTensors(size, size.vocab).map((tensor) => ({ tensor, place: placeOf(tensor.source, size) }))
  const wanted = new Map(placed.map(({ place }) => [place.array, place]))
  const problems: string[] = []
  const missing = [...wanted.keys()].filter((name) => !arrays.has(name))
  const unknown = [...arrays.keys()].filter((name) => !wanted.has(name))
  const misshapen = [...wanted.values()].flatMap(({ array, shape }) => {
    const have = arrays.get(array)?.shape
    return !have || String(have) === String(shape)
      ? []
      : [`${array} is [${have.join(', ')}] instead of [${shape.join(', ')}]`]
  })
  if (missing.length > 0) problems.push(`missing: ${someOf(missing)}`)
  if (unknown.length > 0) problems.push(`unknown: ${someOf(unknown)}`)
  if (misshapen.length > 0) problems.push(`wrong shape: ${someOf(misshapen)}`)
  if (problems.length > 0) {
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${path}: the arrays are not those of a PaliGemma (${problems.join('; ')})`
    )
  }
  const strange = [...wanted.keys()].flatMap((name) => {
    const { dtype, header } = arrays.get(name)!
    return types[dtype] === undefined ? [`${name} is ${dtype}`] : header.fortranOrder ? [`${name} is column-major`] : []
  })
  if (strange.length > 0) {
    throw new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      `${path}: ${someOf(strange)}; only row-major float32, float16 and bfloat16 arrays can be converted`
    )
  }
  return placed.map(({ tensor, place }) =>
    sourceTensor(path, tensor.source, tensor.shape, place, arrays.get(place.array)!, reader)
  )
}

function sourceTensor(
  path: string,
  name: string,
  shape: number[],
  place: ArrayPlace,
  array: NpzArray,
  reader: PartReader
): SourceTensor {
  return {
    name,
    file: path,
    type: types[array.dtype]!,
    shape,
    bytes: array.bytes / place.parts,
    read: async (start, target) => {
      await reader.read(array, place, start, target)
    }
  }
}

/** What shapes do not tell is the same in every published PaliGemma. */
function configOf(path: string, { text, vision }: NpzShape): SourceConfig {
  const second = text.architecture === 'gemma2'
  return {
    name: basename(path).replace(/\.npz$/i, ''),
    text: {
      ...text,
      contextLength: 8192,
      normEps: 1e-6,
      ropeTheta: 10000,
      // The 27B model is the one whose attention is not scaled by its head size.
      ...(second
        ? {
            queryPreAttnScalar: text.layers === 46 ? text.hidden / text.heads : text.headDim,
            attnSoftcap: 50,
            finalSoftcap: 30,
            slidingWindow: 4096
          }
        : {})
    },
    vision: { ...vision, imageSize: Math.sqrt(vision.tokens) * vision.patchSize, normEps: 1e-6 },
    bosId: 2,
    eosId: 1,
    padId: 0,
    resize: 'bicubic',
    imageMean: [0.5, 0.5, 0.5],
    imageStd: [0.5, 0.5, 0.5]
  }
}
