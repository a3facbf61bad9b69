/**
 * A Hugging Face directory's config files as the sizes and constants of one PaliGemma, with every omitted default
 * filled in.
 */
import { readdir } from 'node:fs/promises'
import { basename, join, resolve } from 'node:path'
import { type Fields, readJson } from '../../formats/fields'
import { modelLimits as most } from './limits'
import { refuseQuantized } from './quantized'
import { type ImageRecipe, readProcessor, readRecipe, statedSize } from './recipe'

export interface TextConfig {
  architecture: 'gemma' | 'gemma2'
  hidden: number
  ffn: number
  layers: number
  heads: number
  kvHeads: number
  headDim: number
  contextLength: number
  normEps: number
  ropeTheta: number
  /** Attention scores are scaled by its -0.5th power; undefined: `headDim` (Gemma 1). */
  queryPreAttnScalar?: number
  /** Gemma 2 only; 0 = off. */
  attnSoftcap?: number
  finalSoftcap?: number
  slidingWindow?: number
}

export interface VisionConfig {
  hidden: number
  ffn: number
  layers: number
  heads: number
  /** px */
  imageSize: number
  /** px */
  patchSize: number
  /** (imageSize / patchSize)^2 */
  tokens: number
  normEps: number
}

export interface SourceConfig extends ImageRecipe {
  name: string
  text: TextConfig
  vision: VisionConfig
  imageTokenId?: number | undefined
  bosId: number
  eosId: number
  /** A further end token, where generation_config.json or the top level of config.json lists one. */
  eotId?: number | undefined
  padId: number
}

const tanhGelu = ['gelu_pytorch_tanh', 'gelu_new', 'gelu_fast', 'gelu_tanh']

/** Reads config.json, generation_config.json and the image processor's settings of `dir`. */
export async function readConfig(dir: string): Promise<SourceConfig> {
  const config = await readJson(join(dir, 'config.json'))
  refuseQuantized(dir, config.values, await readdir(dir))
  const generation = await readJson(join(dir, 'generation_config.json'), true)
  const preprocessor = await readProcessor(dir)

  const modelType = config.string('model_type', 'paligemma')
  if (!['paligemma', 'colpali'].includes(modelType))
    config.unsupported('model_type', 'but only paligemma checkpoints can be converted')
  // The transformers port of ColPali nests the PaliGemma config.
  const root = config.has('vlm_config') ? config.object('vlm_config') : config
  if (!root.has('text_config')) root.fail('text_config', "the text model's sizes")
  if (!root.has('vision_config')) root.fail('vision_config', "the vision tower's sizes")

  const text = readText(root.object('text_config'))
  const vision = readVision(root.object('vision_config'), preprocessor)
  const stop = endTokens([generation, root, root.object('text_config')])
  return {
    name: readName(config, dir),
    text,
    vision,
    imageTokenId: tokenId(root, ['image_token_index', 'image_token_id']),
    bosId: tokenId(generation, ['bos_token_id']) ?? tokenId(root, ['bos_token_id']) ?? 2,
    eosId: stop.eos,
    ...(stop.eot === undefined ? {} : { eotId: stop.eot }),
    padId: tokenId(generation, ['pad_token_id']) ?? tokenId(root, ['pad_token_id']) ?? 0,
    ...readRecipe(preprocessor, vision.imageSize)
  }
}

/** Missing keys take the defaults of GemmaConfig and Gemma2Config: published configs leave out what equals them. */
function readText(config: Fields): TextConfig {
  const type = config.string('model_type', 'gemma')
  if (type !== 'gemma' && type !== 'gemma2')
    config.unsupported('model_type', 'but PaliGemma 1 has gemma and PaliGemma 2 has gemma2')
  const second = type === 'gemma2'
  const text: TextConfig = {
    architecture: type,
    // Gemma 2's defaults are the 2B model's, so a PaliGemma 2 3B config may leave them out; Gemma 1's are the 7B's.
    hidden: config.integer('hidden_size', 1, second ? 2304 : undefined, most.width),
    ffn: config.integer('intermediate_size', 1, second ? 9216 : undefined, most.width),
    layers: config.integer('num_hidden_layers', 1, second ? 26 : undefined, most.layers),
    heads: config.integer('num_attention_heads', 1, second ? 8 : undefined, most.heads),
    kvHeads: config.integer('num_key_value_heads', 1, second ? 4 : undefined, most.heads),
    headDim: config.integer('head_dim', 2, 256, most.headDim),
    contextLength: config.integer('max_position_embeddings', 1, 8192, most.context),
    normEps: config.within('rms_norm_eps', most.eps, 1e-6),
    ropeTheta: readRope(config)
  }
  if (text.heads % text.kvHeads !== 0)
    config.fail('num_key_value_heads', `a divisor of num_attention_heads (${text.heads})`)
  if (text.headDim % 2 !== 0) config.fail('head_dim', 'an even number')
  if (config.boolean('attention_bias', false)) config.unsupported('attention_bias', 'but Gemma has no attention biases')
  if (!config.boolean('use_bidirectional_attention', true))
    config.unsupported('use_bidirectional_attention', 'but in PaliGemma every token of a prompt sees all of it')
  const activation = second ? 'hidden_activation' : config.has('hidden_activation') ? 'hidden_activation' : 'hidden_act'
  // "gelu" in a Gemma config means the tanh form as well: so the training code computes it.
  checkActivation(config, activation, [...tanhGelu, 'gelu'])
  if (second) {
    text.queryPreAttnScalar = config.within('query_pre_attn_scalar', most.attentionScalar, 256)
    text.attnSoftcap = readSoftcap(config, 'attn_logit_softcapping', 50)
    text.finalSoftcap = readSoftcap(config, 'final_logit_softcapping', 30)
    text.slidingWindow = config.integer('sliding_window', 1, 4096, most.context)
    checkLayerTypes(config, text.layers)
  }
  return text
}

/** An explicit null switches a cap off; only a missing key means the default. */
function readSoftcap(config: Fields, name: string, usual: number): number {
  if (config.values[name] === null || config.values[name] === 0) return 0
  return config.within(name, most.softcap, usual)
}

/**
 * The base of the rotary positions. Newer configs move it into `rope_parameters`, older ones had `rope_scaling` for
 * everything else; of both only the type "default" is what Gemma computes, and it scales nothing.
 */
function readRope(config: Fields): number {
  const wholeHead = (fields: Fields): void => {
    if (fields.number('partial_rotary_factor', 1) !== 1)
      fields.unsupported('partial_rotary_factor', 'but Gemma rotates the whole head')
  }
  wholeHead(config)
  let theta = config.within('rope_theta', most.theta, 10000)
  for (const name of ['rope_scaling', 'rope_parameters']) {
    const rope = config.object(name, true)
    const perLayerType = ['sliding_attention', 'full_attention'].filter((layers) => rope.has(layers))
    const bases = (perLayerType.length > 0 ? perLayerType.map((layers) => rope.object(layers)) : [rope]).map(
      (fields) => {
        if (!fields.has('rope_type') && !fields.has('type') && fields.has('factor'))
          config.unsupported(name, 'but PaliGemma uses plain rotary positions')
        for (const key of ['rope_type', 'type'])
          if (fields.string(key, 'default') !== 'default')
            fields.unsupported(key, 'but PaliGemma uses plain rotary positions')
        wholeHead(fields)
        return fields.within('rope_theta', most.theta, theta)
      }
    )
    if (bases.some((base) => base !== bases[0])) config.unsupported(name, 'but all layers of Gemma have one base')
    theta = bases[0]!
  }
  return theta
}

/** Missing keys take SiglipVisionConfig's defaults, except the patch size, whose default of 16 no PaliGemma uses. */
function readVision(config: Fields, preprocessor: Fields | undefined): VisionConfig {
  if (config.string('model_type', 'siglip_vision_model') !== 'siglip_vision_model')
    config.unsupported('model_type', "but PaliGemma's tower is siglip_vision_model")
  const patchSize = config.integer('patch_size', 1, 14, most.patch)
  const imageSize = config.has('image_size')
    ? config.integer('image_size', 1, undefined, most.imageSize)
    : guessImageSize(config, preprocessor, patchSize)
  if (imageSize % patchSize !== 0) config.fail('image_size', `a multiple of patch_size (${patchSize})`)
  const vision: VisionConfig = {
    hidden: config.integer('hidden_size', 1, undefined, most.width),
    ffn: config.integer('intermediate_size', 1, undefined, most.width),
    layers: config.integer('num_hidden_layers', 1, undefined, most.layers),
    heads: config.integer('num_attention_heads', 1, undefined, most.heads),
    imageSize,
    patchSize,
    tokens: (imageSize / patchSize) ** 2,
    normEps: config.within('layer_norm_eps', most.eps, 1e-6)
  }
  if (vision.tokens > most.imageTokens)
    config.fail('image_size', `a size that makes at most ${most.imageTokens} image tokens of patch_size ${patchSize}`)
  if (vision.hidden % vision.heads !== 0)
    config.fail('num_attention_heads', `a divisor of hidden_size (${vision.hidden})`)
  if (config.integer('num_channels', 1, 3) !== 3) config.unsupported('num_channels', 'but pictures are RGB')
  checkActivation(config, 'hidden_act', tanhGelu)
  return vision
}

function guessImageSize(config: Fields, preprocessor: Fields | undefined, patchSize: number): number {
  const stated = statedSize(preprocessor)
  if (stated !== undefined) return stated
  if (config.has('num_image_tokens')) {
    const side = Math.sqrt(config.integer('num_image_tokens', 1, undefined, most.imageTokens))
    if (!Number.isInteger(side)) config.fail('num_image_tokens', 'a square number')
    return side * patchSize
  }
  return 224
}

function checkActivation(config: Fields, name: string, accepted: string[]): void {
  const value = config.string(name, 'gelu_pytorch_tanh')
  if (!accepted.includes(value)) config.unsupported(name, 'but the engine computes the tanh GELU')
}

/** Newer configs spell the layer pattern out; the engine knows Gemma 2's: even layers slide. */
function checkLayerTypes(config: Fields, layers: number): void {
  if (!config.has('layer_types')) return
  const types = config.values['layer_types']
  if (!Array.isArray(types) || types.length !== layers) config.fail('layer_types', `a list of ${layers} names`)
  if (!types.every((type, i) => type === (i % 2 === 0 ? 'sliding_attention' : 'full_attention'))) {
    config.unsupported('layer_types', 'but Gemma 2 alternates sliding and full attention, sliding first')
  }
}

function tokenId(config: Fields | undefined, names: string[]): number | undefined {
  for (const name of names) if (config?.has(name)) return config.integer(name, 0, undefined, most.tokenId)
  return undefined
}

/**
 * generation_config.json decides, then the top level of config.json, then text_config. PaliGemma 2's text_config lists
 * [1, 107] because Gemma 2's chat models end turns with 107; the vision-language model does not.
 */
function endTokens(sources: (Fields | undefined)[]): { eos: number; eot?: number } {
  for (const [i, source] of sources.entries()) {
    if (!source?.has('eos_token_id')) continue
    const value = source.values['eos_token_id']
    const list: unknown[] = Array.isArray(value) ? value : [value]
    const valid =
      list.length > 0 &&
      list.every((id) => typeof id === 'number' && Number.isSafeInteger(id) && id >= 0 && id <= most.tokenId)
    if (!valid) source.fail('eos_token_id', 'a token id or a list of them')
    const [eos, eot] = list as [number, number?]
    return eot === undefined || i === sources.length - 1 ? { eos } : { eos, eot }
  }
  return { eos: 1 }
}

function readName(config: Fields, dir: string): string {
  const stated = config.values['_name_or_path']
  if (typeof stated === 'string' && stated !== '' && !stated.startsWith('/') && !stated.startsWith('.'))
    return basename(stated)
  return basename(resolve(dir))
}
