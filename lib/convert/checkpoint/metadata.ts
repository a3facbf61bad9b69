/** The GGUF keys of a converted model; docs/gguf.md documents them. */
import { PaliGemmaError } from '../../base/errors'
import type { SourceConfig } from './config'
import type { Metadata } from '../../formats/gguf-writer'
import type { Plan } from './plan'
import type { Vocabulary } from '../../formats/sentencepiece'
import type { FileType } from '../../formats/types'

export function modelMetadata(config: SourceConfig, plan: Plan, vocabulary: Vocabulary, type: FileType): Metadata {
  const { text, vision } = config
  const list: Metadata = []
  const u32 = (key: string, value: number) => list.push([key, { type: 'u32', value }])
  const f32 = (key: string, value: number) => list.push([key, { type: 'f32', value }])
  const bool = (key: string, value: boolean) => list.push([key, { type: 'bool', value }])
  const string = (key: string, value: string) => list.push([key, { type: 'string', value }])

  const arch = text.architecture
  string('general.architecture', arch)
  string('general.type', 'model')
  string('general.name', config.name)
  u32('general.file_type', type.fileType)
  u32('general.quantization_version', 2)
  u32('general.alignment', 32)

  u32(`${arch}.context_length`, text.contextLength)
  u32(`${arch}.embedding_length`, text.hidden)
  u32(`${arch}.block_count`, text.layers)
  u32(`${arch}.feed_forward_length`, text.ffn)
  u32(`${arch}.attention.head_count`, text.heads)
  u32(`${arch}.attention.head_count_kv`, text.kvHeads)
  u32(`${arch}.attention.key_length`, text.headDim)
  u32(`${arch}.attention.value_length`, text.headDim)
  f32(`${arch}.attention.layer_norm_rms_epsilon`, text.normEps)
  f32(`${arch}.rope.freq_base`, text.ropeTheta)
  u32(`${arch}.vocab_size`, plan.vocab)
  if (text.queryPreAttnScalar !== undefined) f32(`${arch}.attention.query_pre_attn_scalar`, text.queryPreAttnScalar)
  if (text.attnSoftcap !== undefined) f32(`${arch}.attn_logit_softcapping`, text.attnSoftcap)
  if (text.finalSoftcap !== undefined) f32(`${arch}.final_logit_softcapping`, text.finalSoftcap)
  if (text.slidingWindow !== undefined) u32(`${arch}.attention.sliding_window`, text.slidingWindow)

  bool('clip.has_vision_encoder', true)
  string('clip.projector_type', 'paligemma')
  bool('clip.use_gelu', true)
  u32('clip.vision.image_size', vision.imageSize)
  u32('clip.vision.patch_size', vision.patchSize)
  u32('clip.vision.embedding_length', vision.hidden)
  u32('clip.vision.feed_forward_length', plan.visionFfn)
  u32('clip.vision.block_count', vision.layers)
  u32('clip.vision.projection_dim', text.hidden)
  u32('clip.vision.attention.head_count', vision.heads)
  f32('clip.vision.attention.layer_norm_epsilon', vision.normEps)
  list.push(['clip.vision.image_mean', { type: 'f32s', value: config.imageMean }])
  list.push(['clip.vision.image_std', { type: 'f32s', value: config.imageStd }])
  string('paligemma.image.resize', config.resize)
  if (plan.flavour) string('paligemma.retrieval.flavour', plan.flavour)

  string('tokenizer.ggml.model', 'llama')
  string('tokenizer.ggml.pre', 'default')
  list.push(['tokenizer.ggml.tokens', { type: 'strings', value: vocabulary.tokens }])
  list.push(['tokenizer.ggml.scores', { type: 'f32s', value: vocabulary.scores }])
  list.push(['tokenizer.ggml.token_type', { type: 'i32s', value: vocabulary.types }])
  checkTokenIds(config, vocabulary)
  u32('tokenizer.ggml.bos_token_id', config.bosId)
  u32('tokenizer.ggml.eos_token_id', config.eosId)
  if (config.eotId !== undefined) u32('tokenizer.ggml.eot_token_id', config.eotId)
  u32('tokenizer.ggml.unknown_token_id', vocabulary.unkId)
  u32('tokenizer.ggml.padding_token_id', config.padId)
  bool('tokenizer.ggml.add_bos_token', false)
  bool('tokenizer.ggml.add_eos_token', false)
  bool('tokenizer.ggml.add_space_prefix', false)
  return list
}

/** The engine looks these tokens up by their ids. */
function checkTokenIds(config: SourceConfig, { tokens }: Vocabulary): void {
  const ids = {
    bos: config.bosId,
    eos: config.eosId,
    pad: config.padId,
    ...(config.eotId !== undefined && { eos: config.eotId })
  }
  for (const [name, id] of Object.entries(ids)) {
    if (id < tokens.length) continue
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${config.name}: ${name}_token_id is ${id}, but the vocabulary has ${tokens.length} tokens; check config.json and generation_config.json`
    )
  }
}
