/** `/v1/responses`: the OpenAI client's other way to ask, without what it stores on the server. */
import * as z from './vendored'
import { constraint, ignored, imageText, off, openAiParameters, optional, textFormat } from './common'

const inputPart = z.discriminatedUnion(
  'type',
  [
    z.object({ type: z.literal('input_text'), text: z.string() }),
    z
      .object({
        type: z.literal('input_image'),
        image_url: optional(z.string()).meta({ description: imageText }),
        file_id: off('files are not kept; send image_url', () => false),
        detail: optional(z.string())
      })
      .refine(({ image_url: url, file_id: id }) => url || id, { path: ['image_url'], error: 'Expected a picture' }),
    z.object({ type: z.literal('output_text'), text: z.string() }),
    z.object({ type: z.literal('refusal'), refusal: z.string() })
  ],
  { error: 'Expected a part of type "input_text" or "input_image"; audio and files are not supported' }
)

const inputMessage = z
  .looseObject({
    type: optional(z.literal('message')),
    role: z.enum(['system', 'developer', 'user', 'assistant']),
    content: z.union([z.string(), z.array(inputPart)])
  })
  .meta({ id: 'ResponseInputMessage' })

export const responsesRequest = z
  .strictObject({
    input: z.union([z.string(), z.array(inputMessage).min(1)]),
    instructions: ignored(),
    stream_options: ignored(),
    max_output_tokens: optional(z.int().min(1)),
    include: optional(z.array(z.string())),
    text: optional(z.object({ format: optional(textFormat), verbosity: ignored() })),
    constrain: optional(constraint),
    metadata: optional(z.record(z.string(), z.string())),
    reasoning: ignored(),
    truncation: ignored(),
    max_tool_calls: ignored(),
    background: off('responses are not kept', (v) => v === false),
    conversation: off('conversations are not kept', () => false),
    previous_response_id: off('responses are not kept; send the whole input', () => false),
    prompt: off('prompts are not kept; send input', () => false),
    context_management: ignored(),
    ...openAiParameters
  })
  .meta({ id: 'ResponseRequest' })

export type ResponsesRequest = z.output<typeof responsesRequest>

export const responsesResponse = z
  .looseObject({
    id: z.string(),
    object: z.literal('response'),
    created_at: z.int(),
    status: z.enum(['in_progress', 'completed', 'incomplete', 'failed']),
    model: z.string(),
    output: z.array(z.any()),
    usage: z.any()
  })
  .meta({ id: 'Response' })
