/** The types that a GGUF may hold, and the values of `--type`. */
import { PaliGemmaError } from '../base/errors'

/** Storage types a converter can write, spelt as GGUF tools print them. */
export type StorageType =
  | 'F32'
  | 'F16'
  | 'BF16'
  | 'Q8_0'
  | 'Q4_0'
  | 'Q4_1'
  | 'Q5_0'
  | 'Q5_1'
  | 'Q2_K'
  | 'Q3_K'
  | 'Q4_K'
  | 'Q5_K'
  | 'Q6_K'
  | 'IQ4_NL'
  | 'IQ4_XS'

/** GGUF's id, values a block holds, bytes a block takes. */
export const storage: Readonly<Record<StorageType, { id: number; block: number; bytes: number }>> = {
  F32: { id: 0, block: 1, bytes: 4 },
  F16: { id: 1, block: 1, bytes: 2 },
  BF16: { id: 30, block: 1, bytes: 2 },
  Q4_0: { id: 2, block: 32, bytes: 18 },
  Q4_1: { id: 3, block: 32, bytes: 20 },
  Q5_0: { id: 6, block: 32, bytes: 22 },
  Q5_1: { id: 7, block: 32, bytes: 24 },
  Q8_0: { id: 8, block: 32, bytes: 34 },
  IQ4_NL: { id: 20, block: 32, bytes: 18 },
  Q2_K: { id: 10, block: 256, bytes: 84 },
  Q3_K: { id: 11, block: 256, bytes: 110 },
  Q4_K: { id: 12, block: 256, bytes: 144 },
  Q5_K: { id: 13, block: 256, bytes: 176 },
  Q6_K: { id: 14, block: 256, bytes: 210 },
  IQ4_XS: { id: 23, block: 256, bytes: 136 }
}

/** What other tools' files may hold as well: read, copied and dequantized, never written anew. */
const foreign: Readonly<Record<string, { id: number; block: number; bytes: number }>> = {
  F64: { id: 28, block: 1, bytes: 8 },
  I8: { id: 24, block: 1, bytes: 1 },
  I16: { id: 25, block: 1, bytes: 2 },
  I32: { id: 26, block: 1, bytes: 4 },
  I64: { id: 27, block: 1, bytes: 8 },
  IQ2_XXS: { id: 16, block: 256, bytes: 66 },
  IQ2_XS: { id: 17, block: 256, bytes: 74 },
  IQ2_S: { id: 22, block: 256, bytes: 82 },
  IQ3_XXS: { id: 18, block: 256, bytes: 98 },
  IQ3_S: { id: 21, block: 256, bytes: 110 },
  IQ1_S: { id: 19, block: 256, bytes: 50 },
  IQ1_M: { id: 29, block: 256, bytes: 56 },
  TQ1_0: { id: 34, block: 256, bytes: 54 },
  TQ2_0: { id: 35, block: 256, bytes: 66 },
  MXFP4: { id: 39, block: 32, bytes: 17 },
  NVFP4: { id: 40, block: 64, bytes: 36 },
  Q1_0: { id: 41, block: 128, bytes: 18 },
  Q2_0: { id: 42, block: 64, bytes: 18 }
}

/** Id, block and bytes of any type a GGUF may hold. */
export function layoutOf(type: string): { id: number; block: number; bytes: number } {
  const found = (storage as Record<string, { id: number; block: number; bytes: number }>)[type] ?? foreign[type]
  if (!found) throw new PaliGemmaError('ERR_INTERNAL', `The storage type ${type} is not known; please report this`)
  return found
}

/** Whether a tensor of this type holds real numbers, which can be stored otherwise. */
export function holdsWeights(type: string): boolean {
  return !/^I\d+$/.test(type)
}

/** A value of `--type`: the text matrices' main type, and general.file_type (llama.cpp's numbers). */
export interface FileType {
  name: string
  base: StorageType
  fileType: number
}

const fileTypes: FileType[] = [
  { name: 'F32', base: 'F32', fileType: 0 },
  { name: 'F16', base: 'F16', fileType: 1 },
  { name: 'BF16', base: 'BF16', fileType: 32 },
  { name: 'Q8_0', base: 'Q8_0', fileType: 7 },
  { name: 'Q6_K', base: 'Q6_K', fileType: 18 },
  { name: 'Q5_K_M', base: 'Q5_K', fileType: 17 },
  { name: 'Q5_K_S', base: 'Q5_K', fileType: 16 },
  { name: 'Q5_1', base: 'Q5_1', fileType: 9 },
  { name: 'Q5_0', base: 'Q5_0', fileType: 8 },
  { name: 'Q4_K_M', base: 'Q4_K', fileType: 15 },
  { name: 'Q4_K_S', base: 'Q4_K', fileType: 14 },
  { name: 'Q4_1', base: 'Q4_1', fileType: 3 },
  { name: 'Q4_0', base: 'Q4_0', fileType: 2 },
  { name: 'IQ4_NL', base: 'IQ4_NL', fileType: 25 },
  { name: 'IQ4_XS', base: 'IQ4_XS', fileType: 30 },
  { name: 'Q3_K_L', base: 'Q3_K', fileType: 13 },
  { name: 'Q3_K_M', base: 'Q3_K', fileType: 12 },
  { name: 'Q3_K_S', base: 'Q3_K', fileType: 11 },
  { name: 'Q2_K', base: 'Q2_K', fileType: 10 }
]

/** The short names stand for the medium mixes, as in llama.cpp's tools. */
const aliases: Record<string, string> = { Q3_K: 'Q3_K_M', Q4_K: 'Q4_K_M', Q5_K: 'Q5_K_M' }

/** Every value of `--type`, large to small. */
export const fileTypeNames: readonly string[] = fileTypes.map((type) => type.name)

/** The name of a `general.file_type`, where it is one of these. */
export function fileTypeName(fileType: number | undefined): string | undefined {
  return fileTypes.find((type) => type.fileType === fileType)?.name
}

/** The file type of a name in any case; ERR_INVALID_OPTION lists the names. */
export function parseFileType(name: string): FileType {
  const upper = typeof name === 'string' ? name.toUpperCase() : ''
  const found = fileTypes.find((type) => type.name === (aliases[upper] ?? upper))
  if (!found) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected one of ${fileTypeNames.join(', ')} for type but received ${String(name)}`
    )
  }
  return found
}

/** The storage type of a name in any case, for `--vision-type`. */
export function parseVisionType(name: string): StorageType {
  const upper = typeof name === 'string' ? name.toUpperCase() : ''
  // 1152 is no multiple of 256, so a 256-block type could never be used for SigLIP.
  const names = (Object.keys(storage) as StorageType[]).filter((type) => storage[type].block <= 32)
  const found = names.find((type) => type === upper)
  if (!found)
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected one of ${names.join(', ')} for visionType but received ${String(name)}`
    )
  return found
}

export function isBlockType(type: string): boolean {
  return layoutOf(type).block > 1
}

/** Bytes of `elements` values; a multiple of the block. */
export function bytesOf(type: string, elements: number): number {
  const { block, bytes } = layoutOf(type)
  return (elements / block) * bytes
}

/** Bits a weight of this type takes. */
export function bitsOf(type: string): number {
  return bytesOf(type, 256) / 32
}
