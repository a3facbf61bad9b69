/** `--type`: which storage type every tensor gets. */
import { type FileType, isBlockType, storage, type StorageType } from '../../formats/types'
import type { TensorRole } from './names'

/** The vision tower's type for a file type: int8 suits SigLIP, plain files stay plain. */
export function defaultVisionType(type: FileType): StorageType {
  return isBlockType(type.base) ? 'Q8_0' : type.base
}

/** Where the numbers of a model decide. */
export interface TypeContext {
  type: FileType
  visionType: StorageType
  layers: number
  heads: number
  kvHeads: number
}

/** The type a tensor should have; its width may not allow it, see {@link fitType}. */
function wantedType(role: TensorRole, layer: number | undefined, context: TypeContext): StorageType {
  const { type } = context
  switch (role) {
    case 'textNorm':
    case 'vector':
    case 'visionFfnBias':
    case 'position':
    case 'retrieval':
      return 'F32'
    case 'patch':
      return type.base === 'F16' || isBlockType(type.base) ? 'F16' : 'F32'
    case 'visionMatrix':
    case 'visionFfnUp':
    case 'visionFfnDown':
    case 'projector':
      return context.visionType
    case 'embedding':
      // It is the LM head as well, where coarse steps cost most.
      return !isBlockType(type.base) || type.base === 'Q8_0' ? type.base : 'Q6_K'
    default:
      return mixedType(role, layer ?? 0, context)
  }
}

/** llama.cpp's choices per tensor: value projections and down projections decide most of the error. */
function mixedType(role: TensorRole, layer: number, { type, layers, heads, kvHeads }: TypeContext): StorageType {
  const eighth = Math.floor(layers / 8)
  const moreBits = layer < eighth || layer >= Math.floor((7 * layers) / 8) || (layer - eighth) % 3 === 2
  const grouped = heads / kvHeads >= 4
  switch (type.name) {
    case 'Q2_K':
      if (role === 'attnV') return grouped ? 'Q4_K' : 'Q3_K'
      return role === 'ffnDown' || role === 'attnOutput' ? 'Q3_K' : 'Q2_K'
    case 'Q3_K_M':
      if (role === 'attnV') return layer < 2 ? 'Q5_K' : 'Q4_K'
      if (role === 'ffnDown') return layer < Math.floor(layers / 16) ? 'Q5_K' : 'Q4_K'
      return role === 'attnOutput' ? 'Q4_K' : 'Q3_K'
    case 'Q3_K_L':
      return role === 'attnV' || role === 'ffnDown' || role === 'attnOutput' ? 'Q5_K' : 'Q3_K'
    case 'Q4_K_S':
      if (role === 'attnV') return layer < 4 ? 'Q5_K' : 'Q4_K'
      return role === 'ffnDown' && layer < eighth ? 'Q5_K' : 'Q4_K'
    case 'Q4_K_M':
    case 'Q5_K_M':
      return (role === 'attnV' || role === 'ffnDown') && moreBits ? 'Q6_K' : type.base
    case 'IQ4_NL':
    case 'IQ4_XS':
      return (role === 'attnV' && grouped) || (role === 'ffnDown' && layer < eighth) ? 'Q5_K' : type.base
    default:
      return type.base
  }
}

/** What replaces a type of 256-value blocks for other widths: 32-value blocks of the same quality or better. */
const narrower: Partial<Record<StorageType, StorageType>> = {
  Q2_K: 'Q4_0',
  Q3_K: 'Q4_0',
  Q4_K: 'Q5_0',
  Q5_K: 'Q5_1',
  Q6_K: 'Q8_0',
  IQ4_XS: 'IQ4_NL'
}

/** `wanted`, or the nearest type whose blocks divide rows of `cols` values. */
function fitType(wanted: StorageType, cols: number): StorageType {
  if (cols % storage[wanted].block === 0) return wanted
  const next = narrower[wanted]
  return next && cols % storage[next].block === 0 ? next : 'F16'
}

/** Chooses tensor by tensor and keeps what to tell about it. */
export class TypeChooser {
  private readonly replaced = new Map<string, number>()

  constructor(private readonly context: TypeContext) {}

  choose(role: TensorRole, layer: number | undefined, cols: number): StorageType {
    const wanted = wantedType(role, layer, this.context)
    const fitting = fitType(wanted, cols)
    const what = `${wanted} by ${fitting}`
    if (fitting !== wanted) this.replaced.set(what, (this.replaced.get(what) ?? 0) + 1)
    return fitting
  }

  notes(): string[] {
    return [...this.replaced].map(
      ([what, count]) =>
        `${count} tensor${count > 1 ? 's' : ''} of a width that the type's blocks do not divide: ${what}`
    )
  }
}
