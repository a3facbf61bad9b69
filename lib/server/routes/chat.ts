/** `/v1/chat/completions` */
import { randomUUID } from 'node:crypto'
import type { GenerateOptions } from '../../api/options/options'
import type { GenerateResult } from '../../api/options/results'
import type { GenerateStream } from '../../api/tasks/stream'
import { packageVersion } from '../../base/package-files'
import { json, route, type Call, type Route } from '../call'
import { constraintOf, logprobOf, samplingOf, timingsOf, usageOfAll } from '../generation'
import { askedInChat } from '../messages'
import type { OpenModel } from '../models'
import { chatRequest, chatResponse, type ChatRequest } from '../schemas/chat'
import { dataEvent, done, eventStream, merge, withEnd } from '../sse'

export const fingerprint = `node-paligemma-${packageVersion()}`
export const newId = (prefix: string): string => `${prefix}${randomUUID().replaceAll('-', '')}`
export const now = (): number => Math.floor(Date.now() / 1000)

export const chatRoute: Route = route({
  method: 'post',
  path: '/v1/chat/completions',
  summary: 'OpenAI’s chat completions: a prompt and pictures become text',
  tag: 'OpenAI',
  body: chatRequest,
  response: chatResponse,
  streams: true,
  handle: async (call) => {
    const opened = await call.openModel(call.body.model)
    const requests = await requestsOf(call, opened)
    const head = { id: newId('chatcmpl-'), created: now(), model: opened.name, system_fingerprint: fingerprint }
    const streams = requests.map((request) => opened.model.stream(request))
    if (call.body.stream) {
      const events = chunks(call, streams, head, requests[0]!.prompt)
      return await eventStream(call, events, (error) => dataEvent(error))
    }
    const results = await Promise.all(streams.map(async ({ result }) => await result)).catch((error: unknown) => {
      for (const stream of streams) stream.cancel()
      throw error
    })
    for (const result of results) call.generated(opened.name, requests[0]!.prompt, result)
    return json({
      ...head,
      object: 'chat.completion',
      choices: results.map((result, index) => choice(call.body, result, index)),
      usage: usageOfAll(results.map(({ usage }) => usage)),
      timings: timingsOf(results[0]!.timings)
    })
  }
})

/** One for each of `n` outputs. */
async function requestsOf(call: Call<ChatRequest>, { adapters }: OpenModel): Promise<GenerateOptions[]> {
  const { body, signal } = call
  const { prompt, pictures } = askedInChat(body.messages)
  const images = await call.openPictures(pictures)
  const format = body.response_format ?? undefined
  const constrain = constraintOf(
    format && { type: format.type, ...(format.type === 'json_schema' && { schema: format.json_schema.schema }) },
    body.constrain
  )
  return Array.from({ length: body.n ?? 1 }, (_, index) => ({
    prompt,
    images,
    constrain,
    adapters,
    signal,
    maxTokens: body.max_completion_tokens ?? body.max_tokens ?? undefined,
    logProbs: body.logprobs ? (body.top_logprobs ?? 0) || true : undefined,
    ...samplingOf(body, index)
  }))
}

function choice(body: ChatRequest, result: GenerateResult, index: number): object {
  const { text, tokens, finishReason, seed } = result
  return {
    index,
    message: { role: 'assistant', content: text, refusal: null },
    logprobs: body.logprobs ? { content: tokens.map(logprobOf), refusal: null } : null,
    finish_reason: finishReason,
    seed
  }
}

/**
 * The events of a stream: a first one with the role, the text as it comes, the end of each choice, usage where asked
 * for.
 */
async function* chunks(
  call: Call<ChatRequest>,
  streams: readonly GenerateStream[],
  head: { id: string; created: number; model: string; system_fingerprint: string },
  prompt: string
): AsyncGenerator<string, void, void> {
  const { body } = call
  const withUsage = body.stream_options?.include_usage === true
  const event = (choices: object[], more?: object): string =>
    dataEvent({ ...head, object: 'chat.completion.chunk', choices, ...(withUsage && { usage: null }), ...more })
  const begun = new Set<number>()
  const results: GenerateResult[] = []
  for await (const [index, item] of merge(streams.map(withEnd))) {
    if (!begun.has(index)) yield event([{ index, delta: { role: 'assistant', content: '', refusal: null }, ...open }])
    begun.add(index)
    if ('result' in item) {
      results.push(item.result)
      call.generated(head.model, prompt, item.result)
      const { finishReason, timings } = item.result
      yield event([{ index, delta: {}, logprobs: null, finish_reason: finishReason }], { timings: timingsOf(timings) })
    } else if (item.text !== '' || (body.logprobs && item.token)) {
      const logprobs = body.logprobs && item.token ? { content: [logprobOf(item.token)], refusal: null } : null
      yield event([{ index, delta: { content: item.text }, logprobs, finish_reason: null }])
    }
  }
  if (withUsage) yield event([], { usage: usageOfAll(results.map(({ usage }) => usage)) })
  yield done
}

const open = { logprobs: null, finish_reason: null }
