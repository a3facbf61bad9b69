/** Everything the package exports. */
export { loadModel, PaliGemma, type LoadedModelInfo, type ScoreResult } from './model'
export { type GenerateResult, type GeneratedToken } from './generation'
export { GenerateStream, type Chunk } from './stream'
export { type Detection, type Segmentation } from './tasks'
export {
  type LoadOptions, type GenerateOptions, type SamplingOptions, type ScoreOptions, type BatchOptions,
  type TaskOptions, type AnswerOptions, type CaptionOptions, type DetectOptions, type EncodeImageOptions, type EmbedOptions, type PreprocessOptions
} from './options'
export { type AdapterInfo, type AdapterOption } from './adapters'
export {
  type Constraint, type TaskConstraint, type ChoicesConstraint, type RegexConstraint, type JsonSchemaConstraint
} from './constraint'
export { type JsonSchema } from './json-schema'
export { boxOverlap, suppressOverlaps, type ScoredBox } from './nms'
export { type ImageInput, type ImageEmbedding, type RawPixels } from './image-input'
export { preprocessImage, type PreprocessedImage } from './preprocess'
export {
  parseOutput, decodeLocation, encodeLocation,
  type ParseOptions, type ParsedObject, type Box, type NormalizedBox, type ImageTransform
} from './parse'
export { drawDetections, type Drawable, type DrawOptions } from './draw'
export {
  quantizeVectors,
  type MultiVector, type Int8MultiVector, type BinaryMultiVector, type PageVectors, type VectorType, type RetrievalFlavour
} from './retrieval/vectors'
export { maxSim, rescore, type SearchHit } from './retrieval/max-sim'
export { PageIndex, type PageIndexOptions, type SearchOptions } from './retrieval/page-index'
export { poolTokens, type PoolOptions, type PooledVectors } from './retrieval/pooling'
export {
  similarityMap, drawSimilarityMap, type SimilarityMap, type SimilarityMapOptions, type DrawMapOptions
} from './retrieval/similarity-map'
export { prompts } from './prompts'
export { loadTokenizer, Tokenizer, TokenStream, type EncodeOptions } from './tokenizer'
export { loadMaskDecoder, MaskDecoder } from './mask-decoder'
export {
  inspectModel, dequantizeTensor,
  type ModelInfo, type MetadataEntry, type MetadataValue, type TensorInfo, type InspectOptions
} from './inspect'
export { estimateMemory, type EstimateOptions, type MemoryEstimate } from './estimate'
export { pull, type PullOptions, type PullPlan, type PullProgress, type PullResult } from './hub/pull'
export {
  listPulled, removePulled,
  type ListPulledOptions, type PulledDownload, type PulledList, type PulledModel, type RemovedList, type RemovePulledOptions
} from './hub/manage'
export { type CachedModel } from './hub/cache'
export { convert as convertModel, type ConvertOptions, type ConvertResult } from './convert'
export { quantize as quantizeModel, type QuantizeOptions } from './convert/quantize'
export { collectImportance, type ImportanceOptions, type ImportanceResult } from './importance'
export { compareQuality, type QualityOptions, type QualityResult } from './quality'
export { type SamplePrompt } from './samples'
export { PaliGemmaError, type ErrorCode } from './errors'
