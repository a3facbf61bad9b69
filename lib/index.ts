/** Everything the package exports. */
export { loadModel } from './api/load-model'
export { PaliGemma } from './api/model'
export type { BatchItem, BatchResult, BatchRunOptions, BatchTask, BatchTasks } from './api/many/batch-tasks'
export type { LoadedModelInfo, ModelStats } from './api/info'
export type { ScoreResult } from './api/tasks/score'
export type { ChoiceResult, Chunk, FinishReason, GenerateResult, GeneratedToken } from './api/options/results'
export type { SamplingOptions } from './api/options/sampling'
export type { ResponseOptions } from './api/tasks/stream-body'
export { GenerateStream } from './api/tasks/stream'
export type { Detection, ObjectList, Segmentation } from './api/options/objects'
export type { DescribeVideoOptions, VideoDescription, VideoSegment } from './api/many/describe-video'
export { videoFrames } from './video/frames'
export type { VideoFrame } from './video/decode'
export type { VideoFrameOptions } from './video/options'
export type { Seen, WatchOptions } from './api/many/watch'
export {
  Tracker,
  type Point,
  type Track,
  type Trackable,
  type TrackerOptions,
  type TrackUpdate
} from './output/tracker'
export type { LiveSource } from './video/live'
export type { VideoSource } from './video/source'
export { recommendedMinScore, type ParsedMask } from './api/tasks/tasks'
export type { Tile, TileOption } from './images/tile-plan'
export type {
  LoadOptions,
  GenerateOptions,
  ScoreOptions,
  BatchOptions,
  TaskOptions,
  AnswerOptions,
  CaptionOptions,
  ChoiceOptions,
  DetectOptions,
  OcrOptions,
  TileOptions,
  EncodeImageOptions,
  EmbedOptions
} from './api/options/options'
export type { AdapterInfo } from './api/options/adapters'
export type { AdapterOption } from './convert/adapters/option'
export type { TrainedAdapter } from './convert/adapters/trained'
export type { FitExample, FitExamples, FitLists } from './train/examples'
export { convertDataset, type DatasetOptions, type DatasetResult } from './datasets/convert-dataset'
export type { FitEvaluation, FitOptions, FitResult, FitStep } from './train/options'
export type {
  Constraint,
  TaskConstraint,
  ChoicesConstraint,
  RegexConstraint,
  JsonSchemaConstraint
} from './output/constraint'
export type { JsonSchema } from './output/schema/json-schema'
export type { JsonSchemaValue, SchemaValue, StandardSchema } from './output/schema/standard-schema'
export type { ObjectOptions } from './api/tasks/object'
export { boxOverlap, suppressOverlaps, type OverlapOptions, type ScoredBox } from './output/nms'
export type { ImageInput, ImageEmbedding, ImageStream, RawPixels, WebStream, WithBytes } from './images/image-input'
export { preprocessImage, type PreprocessedImage } from './images/preprocess'
export type { PreprocessOptions } from './images/preprocess-options'
export type { ImageTransform } from './images/transform'
export {
  parseOutput,
  decodeLocation,
  encodeLocation,
  type ParseOptions,
  type ParsedObject,
  type Box,
  type NormalizedBox
} from './output/parse'
export { drawDetections, type DrawOptions } from './output/draw/draw'
export type { Drawable } from './output/drawable'
export { cropBox, fromXyxy, toXyxy, type CropOptions, type XyxyBox } from './output/boxes'
export type { Mask } from './output/masks/mask'
export type { MaskJson } from './output/masks/mask-json'
export { maskToRle, reviveResults, rleToMask, type RleOptions } from './output/masks/mask-forms'
export type { CompressedRle, UncompressedRle } from './output/masks/rle'
export { maskToPolygons, type MaskPolygon, type PolygonOptions } from './output/masks/polygons'
export { maskToSvg, type MaskSvgOptions } from './output/masks/mask-svg'
export {
  toCoco,
  type CocoAnnotation,
  type CocoDataset,
  type CocoOptions,
  type CocoPicture
} from './output/labels/coco'
export { toYolo, type YoloOptions } from './output/labels/yolo'
export {
  quantizeVectors,
  type MultiVector,
  type Int8MultiVector,
  type BinaryMultiVector,
  type PageVectors,
  type VectorType,
  type RetrievalFlavour
} from './retrieval/vectors'
export { maxSim, rescore, type SearchHit } from './retrieval/max-sim'
export { PageIndex, type PageIndexOptions, type SearchOptions } from './retrieval/page-index'
export { poolTokens, type PoolOptions, type PooledVectors } from './retrieval/pooling'
export {
  similarityMap,
  drawSimilarityMap,
  type SimilarityMap,
  type SimilarityMapOptions,
  type DrawMapOptions
} from './retrieval/similarity-map'
export { prompts } from './api/options/prompts'
export { setNativeBinding } from './api/options/engine'
export { listDevices, type DeviceInfo, type DeviceList } from './api/options/device'
export type { DeviceName } from './base/device-name'
export { demoImage } from './base/package-files'
export { loadTokenizer, Tokenizer, TokenStream, type EncodeOptions } from './api/tokenizer'
export { loadMaskDecoder, MaskDecoder } from './output/masks/mask-decoder'
export {
  inspectModel,
  dequantizeTensor,
  type ModelInfo,
  type MetadataEntry,
  type MetadataValue,
  type TensorInfo,
  type InspectOptions
} from './api/inspect'
export { estimateMemory, type EstimateOptions, type MemoryEstimate } from './measure/estimate'
export type { FitEstimateOptions } from './measure/estimate-fit'
export { pull } from './hub/pull'
export type { PullOptions, PullPlan, PullProgress, PullResult } from './hub/pull-options'
export {
  listPulled,
  removePulled,
  type ListPulledOptions,
  type PulledDownload,
  type PulledList,
  type PulledModel,
  type RemovedList,
  type RemovePulledOptions
} from './hub/manage'
export type { CachedModel } from './hub/cache'
export type { ConvertOptions, ConvertResult } from './convert'
export { convertModel } from './hub/convert-model'
export { quantize as quantizeModel, type QuantizeOptions } from './convert/quantize'
export { collectImportance, type ImportanceOptions, type ImportanceResult } from './measure/importance'
export {
  evaluateModel,
  type EvaluatedRow,
  type EvaluateOptions,
  type EvaluateResult,
  type Metric
} from './measure/evaluate'
export type { CocoScores } from './measure/metrics/coco'
export { verifyModel, type VerifyCheck, type VerifyOptions, type VerifyResult } from './measure/verify'
export { compareQuality, type QualityOptions, type QualityResult } from './measure/quality'
export type { SamplePrompt } from './measure/samples'
export { PaliGemmaError, type ErrorCode } from './base/errors'
