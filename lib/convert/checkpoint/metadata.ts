/** The GGUF keys of a converted model; docs/gguf.md documents them. */
import { PaliGemmaError } from '../../base/errors'
import type { SourceConfig } from './config'
import type { Metadata } from '../../formats/gguf-writer'
import type { Plan } from './plan'
import type { Vocabulary } from '../../formats/sentencepiece'
import type { FileType } from '../../formats/types'

type Structure = Pick<Plan, 'vocab' | 'visionFfn' | 'flavour'>

/** Keys and values, as they come. */
class Keys {
  readonly list: Metadata = []
  u32(key: string, value: number): void {
    this.list.push([key, { type: 'u32', value }])
  }
  f32(key: string, value: number): void {
    this.list.push([key, { type: 'f32', value }])
  }
  bool(key: string, value: boolean): void {
    this.list.push([key, { type: 'bool', value }])
  }
  string(key: string, value: string): void {
    this.list.push([key, { type: 'string', value }])
  }
}

export function modelMetadata(config: SourceConfig, plan: Plan, vocabulary: Vocabulary, type: FileType): Metadata {
  const keys = new Keys()
  keys.string('general.architecture', config.text.architecture)
  keys.string('general.type', 'model')
  keys.string('general.name', config.name)
  keys.u32('general.file_type', type.fileType)
  keys.u32('general.quantization_version', 2)
  keys.u32('general.alignment', 32)
  keys.list.push(...structureMetadata(config, plan))
  addTokenizer(keys, config, vocabulary)
  return keys.list
}

/** Of layers, widths and pictures alone: what a model costs can be computed from these. */
export function structureMetadata(config: SourceConfig, plan: Structure): Metadata {
  const keys = new Keys()
  addText(keys, config, plan)
  addVision(keys, config, plan)
  return keys.list
}

function addText(keys: Keys, { text }: SourceConfig, plan: Structure): void {
  const arch = text.architecture
  keys.u32(`${arch}.context_length`, text.contextLength)
  keys.u32(`${arch}.embedding_length`, text.hidden)
  keys.u32(`${arch}.block_count`, text.layers)
  keys.u32(`${arch}.feed_forward_length`, text.ffn)
  keys.u32(`${arch}.attention.head_count`, text.heads)
  keys.u32(`${arch}.attention.head_count_kv`, text.kvHeads)
  keys.u32(`${arch}.attention.key_length`, text.headDim)
  keys.u32(`${arch}.attention.value_length`, text.headDim)
  keys.f32(`${arch}.attention.layer_norm_rms_epsilon`, text.normEps)
  keys.f32(`${arch}.rope.freq_base`, text.ropeTheta)
  keys.u32(`${arch}.vocab_size`, plan.vocab)
  if (text.queryPreAttnScalar !== undefined)
    keys.f32(`${arch}.attention.query_pre_attn_scalar`, text.queryPreAttnScalar)
  if (text.attnSoftcap !== undefined) keys.f32(`${arch}.attn_logit_softcapping`, text.attnSoftcap)
  if (text.finalSoftcap !== undefined) keys.f32(`${arch}.final_logit_softcapping`, text.finalSoftcap)
  if (text.slidingWindow !== undefined) keys.u32(`${arch}.attention.sliding_window`, text.slidingWindow)
}

function addVision(keys: Keys, config: SourceConfig, plan: Structure): void {
  const { text, vision } = config
  keys.bool('clip.has_vision_encoder', true)
  keys.string('clip.projector_type', 'paligemma')
  keys.bool('clip.use_gelu', true)
  keys.u32('clip.vision.image_size', vision.imageSize)
  keys.u32('clip.vision.patch_size', vision.patchSize)
  keys.u32('clip.vision.embedding_length', vision.hidden)
  keys.u32('clip.vision.feed_forward_length', plan.visionFfn)
  keys.u32('clip.vision.block_count', vision.layers)
  keys.u32('clip.vision.projection_dim', text.hidden)
  keys.u32('clip.vision.attention.head_count', vision.heads)
  keys.f32('clip.vision.attention.layer_norm_epsilon', vision.normEps)
  keys.list.push(['clip.vision.image_mean', { type: 'f32s', value: config.imageMean }])
  keys.list.push(['clip.vision.image_std', { type: 'f32s', value: config.imageStd }])
  keys.string('paligemma.image.resize', config.resize)
  if (plan.flavour) keys.string('paligemma.retrieval.flavour', plan.flavour)
}

function addTokenizer(keys: Keys, config: SourceConfig, vocabulary: Vocabulary): void {
  keys.string('tokenizer.ggml.model', 'llama')
  keys.string('tokenizer.ggml.pre', 'default')
  keys.list.push(...vocabularyKeys(vocabulary))
  checkTokenIds(config, vocabulary)
  keys.u32('tokenizer.ggml.bos_token_id', config.bosId)
  keys.u32('tokenizer.ggml.eos_token_id', config.eosId)
  if (config.eotId !== undefined) keys.u32('tokenizer.ggml.eot_token_id', config.eotId)
  keys.u32('tokenizer.ggml.unknown_token_id', vocabulary.unkId)
  keys.u32('tokenizer.ggml.padding_token_id', config.padId)
  keys.bool('tokenizer.ggml.add_bos_token', false)
  keys.bool('tokenizer.ggml.add_eos_token', false)
  keys.bool('tokenizer.ggml.add_space_prefix', false)
}

/** What the entries of a vocabulary are. */
export function vocabularyKeys({ tokens, scores, types, flags }: Vocabulary): Metadata {
  const flagged = [...(flags ?? [])]
  return [
    ['tokenizer.ggml.tokens', { type: 'strings', value: tokens }],
    ['tokenizer.ggml.scores', { type: 'f32s', value: scores }],
    ['tokenizer.ggml.token_type', { type: 'i32s', value: types }],
    ...(flagged.length === 0
      ? []
      : ([
          ['paligemma.added_tokens.ids', { type: 'i32s', value: flagged.map(([id]) => id) }],
          ['paligemma.added_tokens.flags', { type: 'i32s', value: flagged.map(([, flag]) => flag) }]
        ] satisfies Metadata))
  ]
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
      `${config.name}: ${name}_token_id is ${id}, but the vocabulary has ${tokens.length} tokens; check config.json ` +
        'and generation_config.json'
    )
  }
}
