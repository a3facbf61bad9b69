/** A GGUF as the addon gives it. */

export type NativeMetadataValue = number | bigint | boolean | string | NativeMetadataArray
export type NativeMetadataArray = { arrayOf: string; count: number; values: NativeMetadataValue[] }

/** type: GGUF's name ("uint32", "string", "array", ...). 64-bit integers are bigint. */
export type NativeMetadataEntry = { key: string; type: string; value: NativeMetadataValue }

export interface NativeTensorEntry {
  name: string
  type: string
  typeId: number
  /** Outermost dimension first. */
  shape: number[]
  /** From the start of `file`, which of a split model is one of the parts. */
  offset: number
  bytes: number
  file: string
}

/** Read in parts, so that no vocabulary holds up the event loop: `readStructure` does. All in file order. */
export interface NativeGgufFile {
  readonly version: number
  readonly alignment: number
  readonly bytes: number
  readonly metadataCount: number
  readonly tensorCount: number
  /** Arrays are without their values. */
  metadata(first: number, count: number): NativeMetadataEntry[]
  /** Of the array that is this entry of the metadata. */
  values(entry: number, first: number, count: number): NativeMetadataValue[]
  tensors(first: number, count: number): NativeTensorEntry[]
  /** Lets the file go, which else the garbage collector does: until then Windows lets nobody replace it. */
  close(): void
}
