/**
 * What the AI SDK wants of a provider, as far as this one goes: its specifications "v4" (AI SDK 7) and "v3" (AI SDK 6),
 * which differ in how files are written. Of our own, so that no version of its packages has to be installed.
 */

export type Specification = 'v3' | 'v4'

type FileData = string | Uint8Array | URL

export interface FilePart {
  type: 'file'
  mediaType: string
  /** As it is in v3, tagged in v4. */
  data:
    | FileData
    | { type: 'data'; data: string | Uint8Array }
    | { type: 'url'; url: URL }
    | { type: 'reference' | 'text'; [field: string]: unknown }
}

export type Part = { type: 'text'; text: string } | FilePart | { type: string }

export interface Message {
  role: 'system' | 'user' | 'assistant' | 'tool'
  content: string | readonly Part[]
}

export interface CallOptions {
  prompt: readonly Message[]
  maxOutputTokens?: number | undefined
  temperature?: number | undefined
  stopSequences?: string[] | undefined
  topP?: number | undefined
  topK?: number | undefined
  presencePenalty?: number | undefined
  frequencyPenalty?: number | undefined
  responseFormat?: { type: 'text' } | { type: 'json'; schema?: unknown } | undefined
  seed?: number | undefined
  tools?: readonly unknown[] | undefined
  abortSignal?: AbortSignal | undefined
  providerOptions?: Record<string, Record<string, unknown> | undefined> | undefined
}

export type Warning = { type: 'unsupported'; feature: string; details?: string } | { type: 'other'; message: string }

export interface Usage {
  inputTokens: { total: number; noCache: number; cacheRead: undefined; cacheWrite: undefined }
  outputTokens: { total: number; text: number; reasoning: undefined }
}

export interface FinishReason {
  unified: 'stop' | 'length' | 'other'
  raw: string
}

/** Under `providerMetadata.paligemma`. */
export type Metadata = Record<string, Record<string, number | string>>

export interface GeneratedText {
  content: { type: 'text'; text: string }[]
  finishReason: FinishReason
  usage: Usage
  providerMetadata: Metadata
  warnings: Warning[]
}

export type StreamPart =
  | { type: 'stream-start'; warnings: Warning[] }
  | { type: 'text-start'; id: string }
  | { type: 'text-delta'; id: string; delta: string }
  | { type: 'text-end'; id: string }
  | { type: 'finish'; usage: Usage; finishReason: FinishReason; providerMetadata: Metadata }
  | { type: 'error'; error: unknown }

/** A language model of the AI SDK. */
export interface LanguageModel<Version extends Specification = Specification> {
  readonly specificationVersion: Version
  readonly provider: string
  readonly modelId: string
  readonly supportedUrls: Record<string, RegExp[]>
  doGenerate(options: CallOptions): Promise<GeneratedText>
  doStream(options: CallOptions): Promise<{ stream: ReadableStream<StreamPart> }>
}

/** An embedding model of the AI SDK. */
export interface EmbeddingModel<Version extends Specification = Specification> {
  readonly specificationVersion: Version
  readonly provider: string
  readonly modelId: string
  readonly maxEmbeddingsPerCall: number
  readonly supportsParallelCalls: boolean
  doEmbed(options: { values: string[]; abortSignal?: AbortSignal | undefined }): Promise<{
    embeddings: number[][]
    usage: { tokens: number }
    warnings: Warning[]
  }>
}
