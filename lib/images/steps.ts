/** How sharp decodes, as data: the same steps run in this process and in the helper's. */
import type { Sharp } from 'sharp'

// ignoreIcc: the reference processor knows no colour profiles. failOn "error": damaged data is an error, oddities are
// not. limitInputPixels off: our own limit is checked on the header first, with our own message.
export const sharpOptions = { ignoreIcc: true, failOn: 'error', limitInputPixels: false, pages: 1, page: 0 } as const

/** Names of sharp's methods with their arguments. */
export type Steps = readonly (readonly [method: string, ...args: unknown[]])[]

const raw = ['raw', { depth: 'uchar' }] as const

export const rgbSteps: Steps = [['autoOrient'], ['removeAlpha'], ['toColourspace', 'srgb'], raw]
/** Inks as they are: Pillow's conversion to RGB, which knows no ink profile, follows. */
export const cmykSteps: Steps = [['autoOrient'], ['pipelineColourspace', 'cmyk'], ['toColourspace', 'cmyk'], raw]

export function applySteps(input: Sharp, steps: Steps): Sharp {
  let pipeline = input as unknown as Record<string, (...args: unknown[]) => never>
  for (const [method, ...args] of steps) pipeline = pipeline[method]!(...args)
  return pipeline as unknown as Sharp
}
