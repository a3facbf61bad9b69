/** What `node-paligemma/ai-sdk` exports: PaliGemma as a provider of the AI SDK (the package `ai`). */
export { createPaliGemma, type PaliGemmaProvider, type ProviderOptions } from './provider'
export type { EmbeddingModel, LanguageModel, Specification } from './types'
