/**
 * How a checkpoint's processor makes pixel values of pictures: obeyed where the engine computes the same, else refused
 * by name.
 */
import { join } from 'node:path'
import { type Fields, readJson } from '../../formats/fields'

/** Values are (v / 255 - mean) / std per channel, of pictures resized with this filter. */
export interface ImageRecipe {
  resize: 'bicubic' | 'bilinear'
  imageMean: number[]
  imageStd: number[]
}

/**
 * The image processor's settings, by transformers' rule: those nested in processor_config.json count, else
 * preprocessor_config.json, which may nest them as well; undefined where neither is there.
 */
export async function readProcessor(dir: string): Promise<Fields | undefined> {
  const processor = await readJson(join(dir, 'processor_config.json'), true)
  if (processor?.has('image_processor')) return processor.object('image_processor')
  const own = await readJson(join(dir, 'preprocessor_config.json'), true)
  return own?.has('image_processor') ? own.object('image_processor') : (own ?? undefined)
}

/** `size`: one number for both sides, or { height, width }; undefined where it says nothing. */
export function statedSize(config: Fields | undefined): number | undefined {
  if (!config?.has('size')) return undefined
  const value = config.values['size']
  if (typeof value === 'number') return config.integer('size', 1)
  const size = config.object('size')
  if (!size.has('height') || !size.has('width')) {
    config.unsupported('size', 'but pictures are resized to a square of { height, width }')
  }
  const height = size.integer('height', 1)
  if (size.integer('width', 1) !== height) config.unsupported('size', 'but pictures are resized to a square')
  return height
}

/** `imageSize`: what the vision tower takes, in pixels. */
export function readRecipe(config: Fields | undefined, imageSize: number): ImageRecipe {
  const usual: ImageRecipe = { resize: 'bicubic', imageMean: [0.5, 0.5, 0.5], imageStd: [0.5, 0.5, 0.5] }
  if (!config) return usual
  checkProcessor(config, imageSize)
  return { resize: readFilter(config), ...readPixels(config) }
}

/** What changes the picture in ways that the engine does not have. */
function checkProcessor(config: Fields, imageSize: number): void {
  const type = config.string('image_processor_type', 'SiglipImageProcessor')
  if (!/^Siglip(?:2)?ImageProcessor(?:Fast|Pil)?$/.test(type) || type.startsWith('Siglip2'))
    config.unsupported('image_processor_type', "but PaliGemma's is SiglipImageProcessor")
  if (!config.boolean('do_resize', true))
    config.unsupported('do_resize', 'but the engine resizes every picture to the size of the vision tower')
  const known = ['do_resize', 'do_rescale', 'do_normalize', 'do_convert_rgb']
  const other = Object.keys(config.values).find(
    (name) => /^do_/.test(name) && !known.includes(name) && config.values[name]
  )
  if (other !== undefined) config.unsupported(other, 'but the engine only resizes, rescales and normalises pictures')
  const size = statedSize(config)
  if (size !== undefined && size !== imageSize)
    config.unsupported('size', `but the vision tower takes pictures of ${imageSize} x ${imageSize} pixels`)
}

const filters: Readonly<Record<string, ImageRecipe['resize']>> = {
  2: 'bilinear',
  3: 'bicubic',
  bilinear: 'bilinear',
  bicubic: 'bicubic'
}

/** PIL's numbers, 2 bilinear and 3 bicubic, or their names. */
function readFilter(config: Fields): ImageRecipe['resize'] {
  if (!config.has('resample')) return 'bicubic'
  const value = config.values['resample']
  if (typeof value !== 'number' && typeof value !== 'string') config.fail('resample', 'a number of PIL, 2 or 3')
  const name = String(value).toLowerCase().replace(/^.*\./, '')
  if (!Object.hasOwn(filters, name))
    config.unsupported('resample', 'but pictures are resized bicubic (3) or bilinear (2)')
  return filters[name]!
}

// Of what goes into the tower: the usual values are -1..1, those of untouched bytes 0..255.
const mostPixelValue = 1e6

/** v * factor where `do_rescale`, then (x - mean) / std where `do_normalize`, as a mean and std of v / 255. */
function readPixels(config: Fields): Pick<ImageRecipe, 'imageMean' | 'imageStd'> {
  const factor = config.boolean('do_rescale', true) ? config.number('rescale_factor', 1 / 255) : 1
  const normalize = config.boolean('do_normalize', true)
  const mean = normalize ? channels(config, 'image_mean', 0.5) : [0, 0, 0]
  const std = normalize ? channels(config, 'image_std', 0.5) : [1, 1, 1]
  // 1/255 comes in several roundings; the usual one must not change the usual numbers.
  const scale = Math.abs(factor * 255 - 1) < 1e-6 ? 1 : factor * 255
  const imageMean = mean.map((value) => value / scale)
  const imageStd = std.map((value) => value / scale)
  const usable = imageStd.every((value, i) => {
    const ends = [-imageMean[i]! / value, (1 - imageMean[i]!) / value]
    const stored = [Math.fround(value), Math.fround(imageMean[i]!)]
    return stored[0]! > 0 && [...stored, ...ends].every((x) => Number.isFinite(x) && Math.abs(x) <= mostPixelValue)
  })
  if (!usable) {
    const name = scale === 1 ? 'image_std' : 'rescale_factor'
    config.fail(name, `settings (rescale_factor ${factor}, image_mean, image_std) that give finite pixel values`)
  }
  return { imageMean, imageStd }
}

/** One number for all channels or three. */
function channels(config: Fields, name: string, usual: number): number[] {
  if (!config.has(name)) return [usual, usual, usual]
  const value = config.values[name]
  const list: unknown[] = Array.isArray(value) ? value : [value, value, value]
  const valid = list.length === 3 && list.every((v) => typeof v === 'number' && Number.isFinite(v))
  if (!valid) config.fail(name, 'three numbers')
  return list as number[]
}
