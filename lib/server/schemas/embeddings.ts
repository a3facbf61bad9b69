/** `/v1/embeddings` of retrieval (ColPali) models: a vector per token, of texts and of pages. */
import * as z from './vendored'
import { ignored, modelName, off, optional, picture } from './common'

const imageInput = z.strictObject({ image: picture })
const textInput = z.string().min(1)

export const embeddingsRequest = z
  .strictObject({
    model: modelName,
    input: z
      .union([
        textInput,
        imageInput,
        z
          .array(z.union([textInput, imageInput]))
          .min(1)
          .max(256)
      ])
      .meta({ description: 'Queries as texts, pages as { "image": … }.' }),
    encoding_format: optional(z.enum(['float', 'base64'])),
    dimensions: off('vectors have the size that the model was trained for', () => false),
    user: ignored()
  })
  .meta({ id: 'EmbeddingsRequest' })

export const embeddingsResponse = z
  .object({
    object: z.literal('list'),
    model: z.string(),
    data: z.array(
      z.object({
        object: z.literal('embedding'),
        index: z.int(),
        shape: z.array(z.int()).meta({ description: '[vectors, dimensions]' }),
        embedding: z.union([z.array(z.array(z.number())), z.string()]).meta({
          description: 'float: a list of vectors. base64: all their numbers, float32 little endian, row by row.'
        })
      })
    ),
    usage: z.object({ prompt_tokens: z.int(), total_tokens: z.int() })
  })
  .meta({ id: 'Embeddings' })

export type EmbeddingsRequest = z.output<typeof embeddingsRequest>
