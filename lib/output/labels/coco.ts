/** Results as a COCO data set: https://cocodataset.org/#format-data */
import { check, readFields, readOptions, rule, take, wrongOption, type Rules } from '../../base/validate'
import { Classes, classNamesRule, takeClassed } from './classes'
import type { Drawable } from '../drawable'
import { insideFrom, type Mask } from '../masks/mask'
import { joinRings, polygonsOf } from '../masks/polygons'
import { type CompressedRle, encodeRle } from '../masks/rle'

/** A picture with what was found on it. */
export interface CocoPicture {
  /** As it will stand in `file_name`. */
  fileName: string
  /** Results of `detect` or `segment`. */
  objects: readonly Drawable[]
  /** In pixels; not needed where `objects` is what `detect` or `segment` returned, or has masks. */
  width?: number | undefined
  /** As `width`. */
  height?: number | undefined
  /** Default: 1, 2, ... */
  id?: number | undefined
}

/** Options of {@link toCoco}. */
export interface CocoOptions {
  /** The categories, in the order of their ids from 1 on; default: as labels come. */
  labels?: readonly string[] | undefined
  /** Form of masks: "rle" (default, exact), "polygons", which more tools read, or "none". */
  masks?: 'rle' | 'polygons' | 'none' | undefined
  /** Points of polygons may go that lie nearer than this (pixels) to the line without them; default 0. */
  tolerance?: number | undefined
}

/** An object in a COCO data set, by COCO's own names. */
export interface CocoAnnotation {
  /** From 1 on, over all pictures. */
  id: number
  /** `id` of its picture. */
  image_id: number
  /** `id` of its label among `categories`. */
  category_id: number
  /** x, y, width, height in pixels. */
  bbox: [number, number, number, number]
  /** Of the mask, else of the box, in pixels. */
  area: number
  /** 0: one object, not a group. */
  iscrowd: 0
  /** Of the mask, where there is one: its runs, or polygons (x, y, x, y, ... in pixels). */
  segmentation?: CompressedRle | number[][]
  /** Where there is one; with it the list is what pycocotools' `loadRes` evaluates. */
  score?: number
}

/** A COCO data set, ready for `JSON.stringify`. */
export interface CocoDataset {
  /** Width and height in pixels. */
  images: { id: number; file_name: string; width: number; height: number }[]
  /** In the order of pictures and of their objects. */
  annotations: CocoAnnotation[]
  /** The labels, with ids from 1 on. */
  categories: { id: number; name: string }[]
}

const cocoRules: Rules<CocoOptions> = {
  labels: classNamesRule,
  masks: rule.oneOf('rle', 'polygons', 'none'),
  tolerance: rule.number(0, 1e6)
}
const picturesRule = rule.listOf('{ fileName, objects, width?, height? }', (v) => typeof v === 'object' && v !== null, {
  most: 1 << 24
})
const pictureKeys = ['fileName', 'objects', 'width', 'height', 'id']

/**
 * Pictures and what was found on them as one COCO data set. Boxes without area are left out. Category and annotation
 * ids begin at 1.
 * @throws PaliGemmaError ERR_INVALID_OPTION
 */
export function toCoco(pictures: readonly CocoPicture[], options: CocoOptions = {}): CocoDataset {
  const taken = readOptions<CocoOptions>('toCoco', options, cocoRules)
  const writer = new CocoWriter(taken)
  const dataset: CocoDataset = { images: [], annotations: [], categories: [] }
  const ids = new Set<number>()
  for (const [i, picture] of take('pictures', pictures, picturesRule).entries()) {
    const { image, annotations } = writer.add(`pictures[${i}]`, picture)
    check(`pictures[${i}].id`, image.id, { expected: 'an id of its own', accepts: () => !ids.has(image.id) })
    ids.add(image.id)
    dataset.images.push(image)
    for (const annotation of annotations) dataset.annotations.push(annotation)
  }
  dataset.categories = writer.categories
  return dataset
}

/** Picture by picture, for data sets that do not fit into memory. */
export class CocoWriter {
  readonly #classes: Classes
  #pictures = 0
  #annotations = 0

  /** `open`: labels may be others than those of the options, and come after them. */
  constructor(
    private readonly options: CocoOptions,
    open?: boolean
  ) {
    this.#classes = new Classes(options.labels, open)
  }

  add(name: string, given: unknown): { image: CocoDataset['images'][0]; annotations: CocoAnnotation[] } {
    const fields = readFields(name, given, pictureKeys, '{ fileName, objects, width?, height? }')
    const { fileName, id = ++this.#pictures } = fields as { fileName: string; id?: number }
    check(`${name}.fileName`, fileName, rule.name)
    check(`${name}.id`, id, rule.integer(0))
    const objects = takeClassed(`${name}.objects`, fields['objects'], this.#classes)
    const [width, height] = sizeOf(name, fields, objects[0]?.object.mask)
    return {
      image: { id, file_name: fileName, width, height },
      annotations: objects.map(({ object, classId }) => this.#annotation(object, id, classId + 1))
    }
  }

  get categories(): CocoDataset['categories'] {
    return this.#classes.names.map((name, i) => ({ id: i + 1, name }))
  }

  #annotation({ box, mask, score }: Drawable, image: number, category: number): CocoAnnotation {
    const { masks = 'rle', tolerance = 0 } = this.options
    return {
      id: ++this.#annotations,
      image_id: image,
      category_id: category,
      bbox: [box.x, box.y, box.width, box.height],
      area: mask ? areaOf(mask) : box.width * box.height,
      iscrowd: 0,
      ...(mask &&
        masks !== 'none' && {
          segmentation:
            masks === 'rle' ? { size: [mask.height, mask.width], counts: encodeRle(mask) } : rings(mask, tolerance)
        }),
      ...(score !== undefined && { score })
    }
  }
}

/** COCO's polygons have no holes: where there are any, a bridge without width leads to them. */
function rings(mask: Mask, tolerance: number): number[][] {
  return polygonsOf(mask, tolerance).map((polygon) => joinRings([polygon]))
}

function areaOf({ data }: Mask): number {
  let sum = 0
  for (let i = 0; i < data.length; i++) if (data[i]! >= insideFrom) sum++
  return sum
}

/** Of the picture: as given, as the list of results says, or as a mask has it. */
export function sizeOf(name: string, fields: Record<string, unknown>, mask: Mask | undefined): [number, number] {
  const list = (fields['objects'] ?? {}) as { width?: unknown; height?: unknown }
  const side = rule.above(0)
  return (['width', 'height'] as const).map((key) => {
    const value = fields[key] ?? list[key] ?? mask?.[key]
    if (!side.accepts(value)) throw wrongOption(`${name}.${key}`, 'the size in pixels', value)
    return value
  }) as [number, number]
}
