/** What a sharp pipeline reads, from sharp's own options; where a later sharp keeps it elsewhere, nothing is known. */
import type { Sharp } from 'sharp'
import { isObject, isUint8Array } from '../base/realms'

export type PipelineInput = Uint8Array | string

interface Options {
  input?: unknown
  join?: unknown
  composite?: unknown
  joinChannelIn?: unknown
  boolean?: unknown
}

/** Pictures that are joined to one; empty where the pipeline has one input, or none as it makes its own. */
export function joinedInputs(pipeline: Sharp): PipelineInput[] {
  return listOf(optionsOf(pipeline).join).flatMap(inputOf)
}

/** Every encoded picture that goes into the output: what is read, joined, laid over it, added as channels. */
export function allInputs(pipeline: Sharp): PipelineInput[] {
  const { input, composite, joinChannelIn, boolean } = optionsOf(pipeline)
  const overlays = listOf(composite).map((overlay) => (isObject(overlay) ? overlay['input'] : undefined))
  const others = [input, boolean, ...overlays, ...listOf(joinChannelIn)].flatMap(inputOf)
  return [...others, ...joinedInputs(pipeline)]
}

function optionsOf(pipeline: Sharp): Options {
  const { options } = pipeline as unknown as { options?: unknown }
  return isObject(options) ? options : {}
}

const listOf = (value: unknown): unknown[] => (Array.isArray(value) ? value : [])

/** Raw pixels are no encoded picture. */
function inputOf(descriptor: unknown): PipelineInput[] {
  if (!isObject(descriptor) || Number(descriptor['rawChannels'] ?? 0) > 0) return []
  const { buffer, file } = descriptor
  if (isUint8Array(buffer)) return [buffer]
  return typeof file === 'string' && file !== '' ? [file] : []
}
