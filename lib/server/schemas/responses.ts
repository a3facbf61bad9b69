/** `/v1/responses`: the OpenAI client's other way to ask, without what it stores on the server. */
import { z } from 'zod'
import { constraint, ignored, imageText, isEmpty, jsonSchemaValue, modelName, off, optional, sampling } from './common'

const inputPart = z.discriminatedUnion(
  'type',
  [
    z.object({ type: z.literal('input_text'), text: z.string() }),
    z.object({
      type: z.literal('input_image'),
      image_url: optional(z.string()).meta({ description: imageText }),
      file_id: off('files are not kept; send image_url', () => false),
      detail: optional(z.string())
    }),
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

const textFormat = z.discriminatedUnion('type', [
  z.object({ type: z.literal('text') }),
  z.object({ type: z.literal('json_object') }),
  z.object({
    type: z.literal('json_schema'),
    name: optional(z.string()),
    description: optional(z.string()),
    strict: optional(z.boolean()),
    schema: jsonSchemaValue
  })
])

export const responsesRequest = z
  .strictObject({
    model: modelName,
    input: z.union([z.string(), z.array(inputMessage).min(1)]),
    instructions: ignored(),
    stream: optional(z.boolean()),
    stream_options: ignored(),
    max_output_tokens: optional(z.int().min(1)),
    ...sampling,
    top_logprobs: optional(z.int().min(0).max(20)),
    include: optional(z.array(z.string())),
    text: optional(z.object({ format: optional(textFormat), verbosity: ignored() })),
    constrain: optional(constraint),
    metadata: optional(z.record(z.string(), z.string())),
    user: ignored(),
    store: ignored(),
    service_tier: ignored(),
    safety_identifier: ignored(),
    prompt_cache_key: ignored(),
    prompt_cache_retention: ignored(),
    parallel_tool_calls: ignored(),
    reasoning: ignored(),
    truncation: ignored(),
    max_tool_calls: ignored(),
    background: off('responses are not kept', (v) => v === false),
    conversation: off('conversations are not kept', () => false),
    previous_response_id: off('responses are not kept; send the whole input', () => false),
    prompt: off('prompts are not kept; send input', () => false),
    tool_choice: off('the model cannot call tools', (v) => v === 'none' || v === 'auto'),
    tools: off('the model cannot call tools', isEmpty)
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
