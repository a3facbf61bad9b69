/** `/v1/embeddings` */
import { json, route, type Call, type Route } from '../call'
import { ApiError } from '../errors'
import type { OpenModel } from '../models'
import { embeddingsRequest, embeddingsResponse, type EmbeddingsRequest } from '../schemas/embeddings'

type Input = Exclude<EmbeddingsRequest['input'], readonly unknown[]>

export const embeddingsRoute: Route = route({
  method: 'post',
  path: '/v1/embeddings',
  summary: 'Vectors of queries and pages, one per token, for late interaction (ColPali models)',
  tag: 'OpenAI',
  body: embeddingsRequest,
  response: embeddingsResponse,
  handle: async (call) => {
    const { input, encoding_format: format } = call.body
    const opened = await call.openModel(call.body.model)
    if (!opened.model.info.hasRetrieval) throw noRetrieval(opened.name)
    const inputs = Array.isArray(input) ? input : [input]
    const data = await Promise.all(
      inputs.map(async (item, index) => {
        const { tokens, dims, data } = await embed(call, opened, item)
        const embedding = format === 'base64' ? base64(data) : rows(data, tokens, dims)
        return { object: 'embedding', index, shape: [tokens, dims], embedding }
      })
    )
    const tokens = data.reduce((sum, { shape }) => sum + shape[0]!, 0)
    return json({ object: 'list', model: opened.name, data, usage: { prompt_tokens: tokens, total_tokens: tokens } })
  }
})

const noRetrieval = (name: string): ApiError =>
  new ApiError(
    400,
    'ERR_MODEL_UNSUPPORTED',
    `The model ${name} gives no vectors; serve a ColPali checkpoint, such as vidore/colpali-v1.3`,
    { param: 'model' }
  )

async function embed(
  call: Call,
  { model, adapters }: OpenModel,
  input: Input
): Promise<{ tokens: number; dims: number; data: Float32Array }> {
  const options = { adapters, signal: call.signal }
  if (typeof input === 'string') return await model.embedText(input, options)
  const [image] = await call.openPictures([input.image])
  return await model.embedImage(image!, options)
}

const base64 = ({ buffer, byteOffset, byteLength }: Float32Array): string =>
  Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength).toString('base64')

const rows = (data: Float32Array, tokens: number, dims: number): number[][] =>
  Array.from({ length: tokens }, (_, i) => [...data.subarray(i * dims, (i + 1) * dims)])
