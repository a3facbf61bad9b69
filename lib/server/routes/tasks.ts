/** The model's own tasks that give text or numbers: caption, answer, ocr, score. */
import { prompts } from '../../api/options/prompts'
import type { GenerateOptions } from '../../api/options/options'
import type { GenerateResult } from '../../api/options/results'
import type { GenerateStream } from '../../api/tasks/stream'
import { Channel } from '../../base/channel'
import { ApiError } from '../errors'
import { json, route, type Call, type Route } from '../call'
import { samplingOf, timingsOf, untimed, usageOf } from '../generation'
import { dataEvent, done, eventStream, withEnd } from '../sse'
import type { Picture } from '../schemas/common'
import {
  answerRequest,
  captionRequest,
  ocrRequest,
  ocrResponse,
  scoreRequest,
  scoreResponse,
  textResponse,
  type CaptionRequest,
  type OcrRequest
} from '../schemas/tasks'

const lines = { short: prompts.shortCaption, coco: prompts.caption, long: prompts.describe }

type Generating = Omit<CaptionRequest & OcrRequest, 'image' | 'style' | 'lang'>

async function answerText(
  call: Call<Generating>,
  pictures: Picture[],
  prompt: string,
  constrain?: GenerateOptions['constrain']
): Promise<Response> {
  const { body, signal } = call
  const { model, name, adapters } = await call.openModel(body.model)
  const images = await call.openPictures(pictures)
  const maxTokens = body.max_tokens ?? undefined
  const request = { prompt, images, constrain, adapters, signal, maxTokens, ...samplingOf(body) }
  const answer = (result: GenerateResult): object => {
    call.generated(name, prompt, result)
    const { text, finishReason, seed, usage, timings } = result
    return {
      model: name,
      text,
      finish_reason: finishReason,
      seed,
      usage: usageOf(usage),
      timings: timingsOf(timings)
    }
  }
  if (!body.stream) return json(answer(await model.generate(request)))
  return await eventStream(call, events(model.stream(request), answer), dataEvent)
}

/** `delta`s of the text as it comes, then the answer. */
async function* events(
  stream: GenerateStream,
  answer: (result: GenerateResult) => object
): AsyncGenerator<string, void, void> {
  for await (const item of withEnd(stream)) {
    if ('result' in item) yield dataEvent(answer(item.result))
    else if (item.text !== '') yield dataEvent({ delta: item.text })
  }
  yield done
}

/** A page in parts: with `stream` it tells of each that is done, and the text at the end. */
async function readTiles(call: Call<OcrRequest>): Promise<Response> {
  const { body, signal } = call
  const { model, name, adapters } = await call.openModel(body.model)
  const [image] = await call.openPictures([body.image])
  const start = performance.now()
  const read = async (onTile?: (done: number, all: number) => void): Promise<object> => {
    const options = { tiles: body.tiles!, maxTokens: body.max_tokens ?? undefined, ...samplingOf(body) }
    const text = await model.ocr(image!, { ...options, ...(onTile && { onTile }), adapters, signal })
    const usage = { imageTokens: model.info.imageTokens, promptTokens: 0, completionTokens: 0 }
    call.generated(name, prompts.ocr(), { text, usage, timings: untimed })
    return { model: name, text, timings: { total_ms: Math.round((performance.now() - start) * 100) / 100 } }
  }
  return body.stream ? await eventStream(call, tileEvents(read), dataEvent) : json(await read())
}

async function* tileEvents(
  read: (onTile: (done: number, all: number) => void) => Promise<object>
): AsyncGenerator<string, void, void> {
  const news = new Channel<{ done: number; all: number }>()
  const result = read((done, all) => news.put({ done, all }))
  result.then(
    () => news.close(),
    (error: unknown) => news.close({ error })
  )
  for await (const tiles of news) yield dataEvent({ tiles })
  yield dataEvent(await result)
  yield done
}

/** `image` or `images`. */
function picturesOf({
  image,
  images
}: {
  image?: Picture | undefined
  images?: Picture[] | null | undefined
}): Picture[] {
  if (image !== undefined && images)
    throw new ApiError(400, 'ERR_INVALID_OPTION', 'Expected image or images but received both')
  return images ?? (image === undefined ? [] : [image])
}

export const taskRoutes: Route[] = [
  route({
    method: 'post',
    path: '/v1/caption',
    summary: 'A sentence about a picture',
    tag: 'Tasks',
    body: captionRequest,
    response: textResponse,
    multipart: true,
    streams: true,
    handle: async (call) => {
      const { image, style, lang } = call.body
      return await answerText(call, [image], lines[style ?? 'coco'](lang ?? 'en'))
    }
  }),
  route({
    method: 'post',
    path: '/v1/answer',
    summary: 'The answer to a question about one or several pictures',
    tag: 'Tasks',
    body: answerRequest,
    response: textResponse,
    multipart: true,
    streams: true,
    handle: async (call) => {
      const { question, lang, choices } = call.body
      const prompt = prompts.answer(question, lang ?? 'en')
      return await answerText(call, picturesOf(call.body), prompt, choices ? { choices } : undefined)
    }
  }),
  route({
    method: 'post',
    path: '/v1/ocr',
    summary: 'The text in a picture',
    tag: 'Tasks',
    body: ocrRequest,
    response: ocrResponse,
    multipart: true,
    streams: true,
    handle: async (call) =>
      call.body.tiles ? await readTiles(call) : await answerText(call, [call.body.image], prompts.ocr())
  }),
  route({
    method: 'post',
    path: '/v1/score',
    summary: 'How probable a text is after pictures and a prompt',
    tag: 'Tasks',
    body: scoreRequest,
    response: scoreResponse,
    multipart: true,
    handle: async (call) => {
      const { prompt, suffix } = call.body
      const { model, name, adapters } = await call.openModel(call.body.model)
      const images = await call.openPictures(picturesOf(call.body))
      const { tokens, logProbs, total, mean } = await model.score({
        prompt,
        suffix,
        images,
        adapters,
        signal: call.signal
      })
      return json({
        model: name,
        tokens: tokens.map(({ text }, i) => ({ text, logprob: logProbs[i]! })),
        log_probs: logProbs,
        total,
        mean
      })
    }
  })
]
