/** `/v1/detect` and `/v1/segment` */
import type { DetectOptions } from '../../api/options/options'
import type { Chunk, GeneratedToken } from '../../api/options/results'
import type { Detection, ObjectList, Segmentation } from '../../api/options/objects'
import { Channel } from '../../base/channel'
import { made } from '../../images/problems'
import { maskToRle } from '../../output/masks/mask-forms'
import { loadSharp } from '../../images/sharp'
import { json, route, type Call, type Route } from '../call'
import { ApiError } from '../errors'
import { dataEvent, done, eventStream } from '../sse'
import { samplingOf, untimed } from '../generation'
import type { OpenModel } from '../models'
import {
  detectRequest,
  detectResponse,
  parseRequest,
  parseResponse,
  segmentRequest,
  segmentResponse,
  type DetectRequest,
  type SegmentRequest
} from '../schemas/tasks'

export const objectRoutes: Route[] = [
  route({
    method: 'post',
    path: '/v1/detect',
    summary: 'Boxes around named things',
    tag: 'Tasks',
    body: detectRequest,
    response: detectResponse,
    multipart: true,
    streams: true,
    handle: async (call) =>
      await new Find(call, await call.openModel(call.body.model)).answer<Detection>(
        async ({ model }, image, labels, options) => await model.detect(image, labels, options),
        async (object) => describe(object)
      )
  }),
  route({
    method: 'post',
    path: '/v1/segment',
    summary: 'Masks of named things',
    tag: 'Tasks',
    body: segmentRequest,
    response: segmentResponse,
    multipart: true,
    streams: true,
    handle: async (call) =>
      await new Find(call, await call.openModel(call.body.model)).answer<Segmentation>(
        async ({ model }, image, labels, options) => await model.segment(image, labels, options),
        async (object) => ({
          ...describe(object),
          codes: object.codes,
          ...(await maskOf(object.mask, call.body.mask_format))
        })
      )
  }),
  route({
    method: 'post',
    path: '/v1/parse',
    summary: 'Boxes and masks that a text of the model names',
    tag: 'Tasks',
    body: parseRequest,
    response: parseResponse,
    multipart: true,
    handle: async (call) => {
      const { model } = await call.openModel(call.body.model)
      const [image] = await call.openPictures([call.body.image])
      const objects: object[] = []
      for (const { mask, codes, valid, ...object } of await model.parse(call.body.text, image!, {
        signal: call.signal
      }))
        objects.push({ ...describe(object), valid, codes, ...(mask && (await maskOf(mask, call.body.mask_format))) })
      return json({ objects })
    }
  })
]

type Search<T> = (
  opened: OpenModel,
  image: Uint8Array,
  labels: string[],
  options: DetectOptions<T>
) => Promise<ObjectList<T>>

const names = (labels: string | string[]): string[] =>
  typeof labels === 'string'
    ? labels
        .split(';')
        .map((label) => label.trim())
        .filter((label) => label !== '')
    : labels

/** One search: what it is called with, and what it said on the way. */
class Find {
  private readonly tokens: GeneratedToken[] = []
  private readonly start = performance.now()
  private firstTokenMs = 0

  constructor(
    private readonly call: Call<DetectRequest>,
    private readonly opened: OpenModel
  ) {}

  /** As a whole, or with `stream` as events: `object` for each as it comes, `tiles` for those looked at, the rest. */
  async answer<T extends Detection>(search: Search<T>, describe: (object: T) => Promise<object>): Promise<Response> {
    if (this.call.body.stream) return await eventStream(this.call, this.events(search, describe), dataEvent)
    const found = await this.run(search)
    const objects: object[] = []
    for (const object of found) objects.push(await describe(object))
    return json({ objects, ...this.rest(found) })
  }

  private async *events<T extends Detection>(
    search: Search<T>,
    describe: (object: T) => Promise<object>
  ): AsyncGenerator<string, void, void> {
    const news = new Channel<{ object: T } | { tiles: { done: number; all: number } }>()
    const searched = this.run(search, {
      onObject: (object) => news.put({ object }),
      ...(this.call.body.tiles && { onTile: (done, all) => news.put({ tiles: { done, all } }) })
    })
    searched.then(
      () => news.close(),
      (error: unknown) => news.close({ error })
    )
    for await (const item of news) yield dataEvent('object' in item ? { object: await describe(item.object) } : item)
    yield dataEvent(this.rest(await searched))
    yield done
  }

  private async run<T extends Detection>(search: Search<T>, more: DetectOptions<T> = {}): Promise<ObjectList<T>> {
    const { body } = this.call
    const [image] = await this.call.openPictures([body.image])
    return await search(this.opened, image!, names(body.labels), { ...this.options(), ...more })
  }

  private options(): Omit<DetectOptions, 'onObject'> {
    const { call, opened } = this
    const { body } = call
    const { nms } = body
    if (body.tiles && body.logprobs)
      throw new ApiError(400, 'ERR_INVALID_OPTION', 'Expected tiles or logprobs but received both', {
        param: 'logprobs'
      })
    return {
      maxTokens: body.max_tokens ?? undefined,
      constrain: body.constrain ?? undefined,
      maxObjects: body.max_objects ?? undefined,
      minScore: body.min_score ?? undefined,
      nms:
        typeof nms === 'object' && nms
          ? { iou: nms.iou, classAgnostic: nms.class_agnostic ?? undefined }
          : (nms ?? undefined),
      tiles: body.tiles ?? undefined,
      // of all tokens, mask codes too, only where asked for
      logProbs: body.logprobs ?? undefined,
      adapters: opened.adapters,
      signal: call.signal,
      ...(body.tiles ? {} : { onToken: (chunk: Chunk) => this.add(chunk) }),
      ...samplingOf(body)
    }
  }

  private add({ token }: Chunk): void {
    if (!token) return
    if (this.tokens.length === 0) this.firstTokenMs = performance.now() - this.start
    this.tokens.push(token)
  }

  /** All but the objects. */
  private rest({ finishReason, seed, tiles }: Pick<ObjectList<Detection>, 'finishReason' | 'seed' | 'tiles'>): object {
    const { call, opened, tokens, firstTokenMs } = this
    const totalMs = performance.now() - this.start
    const text = tokens.map((token) => token.text).join('')
    const decodeMs = totalMs - firstTokenMs
    call.generated(opened.name, `${call.record.path} ${names(call.body.labels).join(' ; ')}`, {
      text,
      usage: { imageTokens: opened.model.info.imageTokens, promptTokens: 0, completionTokens: tokens.length },
      timings: {
        ...untimed,
        firstTokenMs,
        decodeMs,
        decodeTokensPerSecond: tokens.length > 1 ? ((tokens.length - 1) / decodeMs) * 1000 : 0
      }
    })
    return {
      model: opened.name,
      finish_reason: finishReason,
      seed,
      ...(tiles && { tiles }),
      ...(call.body.logprobs && {
        text,
        tokens: tokens.map((token) => ({ text: token.text, logprob: token.logProb ?? null }))
      }),
      timings: { total_ms: Math.round(totalMs * 100) / 100, first_token_ms: Math.round(firstTokenMs * 100) / 100 }
    }
  }
}

type Described = Pick<Detection, 'label' | 'box' | 'normalized' | 'info'> & { score?: number }

function describe({ label, box, normalized: { yMin, xMin, yMax, xMax }, score, info }: Described): object {
  const { x, y, width, height } = box
  return {
    label,
    box: { x, y, width, height },
    normalized: { y_min: yMin, x_min: xMin, y_max: yMax, x_max: xMax },
    ...(score !== undefined && { score }),
    ...(info && { info })
  }
}

async function maskOf(
  mask: Segmentation['mask'],
  format: SegmentRequest['mask_format']
): Promise<{ mask?: object | string }> {
  if (format === 'none') return {}
  if (format !== 'png') return { mask: maskToRle(mask) }
  const { data, width, height } = mask
  const sharp = await loadSharp()
  const grey = sharp(data, { raw: { width, height, channels: 1 } }).toColourspace('b-w')
  const png = await made('the mask', grey.png().toBuffer())
  return { mask: png.toString('base64') }
}
