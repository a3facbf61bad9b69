/** `/v1/responses` */
import type { GenerateOptions } from '../../api/options/options'
import type { GeneratedToken, GenerateResult } from '../../api/options/results'
import { json, route, type Call, type Route } from '../call'
import { ApiError, failureOf } from '../errors'
import { constraintOf, logprobOf, samplingOf, usageOf } from '../generation'
import { askedInResponse } from '../messages'
import type { OpenModel } from '../models'
import { responsesRequest, responsesResponse, type ResponsesRequest } from '../schemas/responses'
import { eventStream, namedEvent, withEnd } from '../sse'
import { newId, now } from './chat'

export const responsesRoute: Route = route({
  method: 'post',
  path: '/v1/responses',
  summary: 'OpenAI’s responses, without what that API keeps on the server',
  tag: 'OpenAI',
  body: responsesRequest,
  response: responsesResponse,
  streams: true,
  handle: async (call) => {
    const opened = await call.openModel(call.body.model)
    const request = await requestOf(call, opened)
    const frame = new Frame(call.body, opened.name)
    if (call.body.stream) {
      return await eventStream(call, events(call, opened, request, frame), (error) =>
        namedEvent('error', { ...error.error, type: 'error', sequence_number: frame.next() })
      )
    }
    const result = await opened.model.generate(request)
    call.generated(opened.name, request.prompt, result)
    return json(frame.response(result))
  }
})

async function requestOf(call: Call<ResponsesRequest>, { adapters }: OpenModel): Promise<GenerateOptions> {
  const { body, signal } = call
  const { prompt, pictures } = askedInResponse(body.input)
  const format = body.text?.format ?? undefined
  return {
    prompt,
    images: await call.openPictures(pictures),
    constrain: constraintOf(
      format && { type: format.type, ...(format.type === 'json_schema' && { schema: format.schema }) },
      body.constrain
    ),
    adapters,
    signal,
    maxTokens: body.max_output_tokens ?? undefined,
    logProbs: wantsLogprobs(body) ? body.top_logprobs || true : undefined,
    ...samplingOf(body)
  }
}

const wantsLogprobs = (body: ResponsesRequest): boolean =>
  body.include?.includes('message.output_text.logprobs') === true || (body.top_logprobs ?? 0) > 0

/** What stays the same in all events and in the answer. */
class Frame {
  private readonly id = newId('resp_')
  readonly messageId = newId('msg_')
  private readonly createdAt = now()
  private sequence = 0

  constructor(
    private readonly body: ResponsesRequest,
    private readonly model: string
  ) {}

  next(): number {
    return this.sequence++
  }

  logprobs(tokens: readonly GeneratedToken[]): object[] {
    return wantsLogprobs(this.body) ? tokens.map(logprobOf) : []
  }

  part(text: string, tokens: readonly GeneratedToken[]): object {
    return { type: 'output_text', text, annotations: [], logprobs: this.logprobs(tokens) }
  }

  message(status: string, content: object[]): object {
    return { id: this.messageId, type: 'message', role: 'assistant', status, content }
  }

  /** Without a result: as it begins. */
  response(result?: GenerateResult, error: object | null = null): object {
    const { body } = this
    const cut = result?.finishReason === 'length'
    const status = error ? 'failed' : !result ? 'in_progress' : cut ? 'incomplete' : 'completed'
    return {
      id: this.id,
      object: 'response',
      created_at: this.createdAt,
      status,
      error,
      incomplete_details: cut ? { reason: 'max_output_tokens' } : null,
      instructions: null,
      metadata: body.metadata ?? {},
      model: this.model,
      output: result ? [this.message(cut ? 'incomplete' : 'completed', [this.part(result.text, result.tokens)])] : [],
      parallel_tool_calls: false,
      previous_response_id: null,
      store: false,
      temperature: body.temperature ?? 0,
      top_p: body.top_p ?? 1,
      max_output_tokens: body.max_output_tokens ?? null,
      text: { format: body.text?.format ?? { type: 'text' } },
      tool_choice: 'none',
      tools: [],
      truncation: 'disabled',
      usage: result ? usage(result) : null
    }
  }
}

function usage(result: GenerateResult): object {
  const { prompt_tokens, completion_tokens, total_tokens } = usageOf(result.usage)
  return {
    input_tokens: prompt_tokens,
    input_tokens_details: { cached_tokens: 0 },
    output_tokens: completion_tokens,
    output_tokens_details: { reasoning_tokens: 0 },
    total_tokens
  }
}

async function* events(
  call: Call<ResponsesRequest>,
  { model, name }: OpenModel,
  request: GenerateOptions,
  frame: Frame
): AsyncGenerator<string, void, void> {
  const event = (type: string, fields: object): string =>
    namedEvent(type, { type, sequence_number: frame.next(), ...fields })
  const place = { item_id: frame.messageId, output_index: 0, content_index: 0 }
  let begun = false
  try {
    for await (const item of withEnd(model.stream(request))) {
      if (!begun) yield beginning(event, place, frame)
      begun = true
      if ('result' in item) {
        call.generated(name, request.prompt, item.result)
        yield ending(event, place, frame, item.result)
      } else if (item.text !== '') {
        const logprobs = frame.logprobs(item.token ? [item.token] : [])
        yield event('response.output_text.delta', { ...place, delta: item.text, logprobs })
      }
    }
  } catch (error) {
    if (!begun || call.request.signal.aborted) throw error
    const { code, body, status } = failureOf(error)
    yield event('response.failed', { response: frame.response(undefined, { code, message: body.error.message }) })
    call.end(status, error)
  }
}

type Place = { item_id: string; output_index: number; content_index: number }
type Event = (type: string, fields: object) => string

function beginning(event: Event, place: Place, frame: Frame): string {
  return [
    event('response.created', { response: frame.response() }),
    event('response.in_progress', { response: frame.response() }),
    event('response.output_item.added', { output_index: 0, item: frame.message('in_progress', []) }),
    event('response.content_part.added', { ...place, part: frame.part('', []) })
  ].join('')
}

function ending(event: Event, place: Place, frame: Frame, result: GenerateResult): string {
  const { text, tokens, finishReason } = result
  const status = finishReason === 'length' ? 'incomplete' : 'completed'
  const part = frame.part(text, tokens)
  return [
    event('response.output_text.done', { ...place, text, logprobs: frame.logprobs(tokens) }),
    event('response.content_part.done', { ...place, part }),
    event('response.output_item.done', { output_index: 0, item: frame.message(status, [part]) }),
    event(`response.${status}`, { response: frame.response(result) })
  ].join('')
}

/** Nothing is kept: whoever asks for a response again is told so. */
export const keptRoute: Route = route({
  method: 'get',
  path: '/v1/responses/:id',
  summary: 'Always 404: responses are not kept',
  tag: 'OpenAI',
  params: { id: 'A response' },
  handle: async () => {
    throw new ApiError(404, 'ERR_INVALID_OPTION', 'Responses are not kept on this server', { param: 'id' })
  }
})
