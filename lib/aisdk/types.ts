/**
 * What the AI SDK wants of a provider, as far as this one goes: its specifications "v4" (AI SDK 7) and "v3" (AI SDK 6),
 * which differ in how files are written. Of our own, so that no version of its packages has to be installed.
 */

export type Specification = 'v3' | 'v4'

type FileData = string | Uint8Array | URL

export interface FilePart {
  type: 'file'
  /** "image/png", "image/*" and the like; others are refused with ERR_INVALID_OPTION. */
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
  /** Messages of others than the user are left out, with a warning. */
  role: 'system' | 'user' | 'assistant' | 'tool'
  /** A text, or texts and files; other parts are left out. */
  content: string | readonly Part[]
}

export interface CallOptions {
  /** The last user message is the prompt, with the pictures of the last user message that has some. */
  prompt: readonly Message[]
  /** As `maxTokens` of `generate`. */
  maxOutputTokens?: number | undefined
  /** As for `generate`. */
  temperature?: number | undefined
  /** As `stop` of `generate`. */
  stopSequences?: string[] | undefined
  /** As for `generate`. */
  topP?: number | undefined
  /** As for `generate`. */
  topK?: number | undefined
  /** Has no effect but a warning; use `repeatPenalty` of `providerOptions.paligemma`. */
  presencePenalty?: number | undefined
  /** Has no effect but a warning; use `repeatPenalty` of `providerOptions.paligemma`. */
  frequencyPenalty?: number | undefined
  /** "json": the output is constrained to the schema, without one to any JSON object. */
  responseFormat?: { type: 'text' } | { type: 'json'; schema?: unknown } | undefined
  /** Any integer; taken modulo 2^48. */
  seed?: number | undefined
  /** Have no effect but a warning: the model cannot call tools. */
  tools?: readonly unknown[] | undefined
  /** Aborting rejects with the signal's reason. */
  abortSignal?: AbortSignal | undefined
  /** `paligemma`: options of `generate`, which win over those above. Those of other providers are left out. */
  providerOptions?: Record<string, Record<string, unknown> | undefined> | undefined
}

export type Warning = { type: 'unsupported'; feature: string; details?: string } | { type: 'other'; message: string }

export interface Usage {
  /** Of pictures and prompt together; what was kept of requests before is not told apart. */
  inputTokens: { total: number; noCache: number; cacheRead: undefined; cacheWrite: undefined }
  /** Of the text, without the end token. */
  outputTokens: { total: number; text: number; reasoning: undefined }
}

export interface FinishReason {
  /** By the SDK's names; "other": it was aborted. */
  unified: 'stop' | 'length' | 'other'
  /** As `finishReason` of `generate`. */
  raw: string
}

/** Under `providerMetadata.paligemma`. */
export type Metadata = Record<string, Record<string, number | string>>

export interface GeneratedText {
  /** One part, the text. */
  content: { type: 'text'; text: string }[]
  /** Why it ended. */
  finishReason: FinishReason
  /** In tokens. */
  usage: Usage
  /** The seed, the pictures' tokens, and `timings` of `generate`. */
  providerMetadata: Metadata
  /** What of the call had no effect. */
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
  /** What the SDK tells versions of its interface apart by. */
  readonly specificationVersion: Version
  /** "paligemma" */
  readonly provider: string
  /** As given to `languageModel`, else as the provider's `modelId`. */
  readonly modelId: string
  /** Pictures' URLs go to the model as they are, which fetches them and refuses private addresses. */
  readonly supportedUrls: Record<string, RegExp[]>
  /** Called by the SDK. @throws as `generate` */
  doGenerate(options: CallOptions): Promise<GeneratedText>
  /** Called by the SDK; errors come as a part of the stream. Cancelling the stream cancels the work. */
  doStream(options: CallOptions): Promise<{ stream: ReadableStream<StreamPart> }>
}

/** An embedding model of the AI SDK. */
export interface EmbeddingModel<Version extends Specification = Specification> {
  /** What the SDK tells versions of its interface apart by. */
  readonly specificationVersion: Version
  /** "paligemma" */
  readonly provider: string
  /** As given to `embeddingModel`, else as the provider's `modelId`. */
  readonly modelId: string
  /** Texts that the SDK gives to one call: 64. */
  readonly maxEmbeddingsPerCall: number
  /** true: calls may run together. */
  readonly supportsParallelCalls: boolean
  /** Called by the SDK. @throws as `embedText` */
  doEmbed(options: { values: string[]; abortSignal?: AbortSignal | undefined }): Promise<{
    /** One for each text, in their order, of length 1: 128 values of ColPali. */
    embeddings: number[][]
    /** Vectors that the means were taken of. */
    usage: { tokens: number }
    /** Empty. */
    warnings: Warning[]
  }>
}
