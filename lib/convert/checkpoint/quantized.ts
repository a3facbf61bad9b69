/**
 * Checkpoints whose weights are packed already: told from their config files or their tensors' names, and refused by
 * name.
 */
import { PaliGemmaError } from '../../base/errors'
import { isObject } from '../../formats/fields'

/** Files beside config.json that tell of a quantization by being there; what wrote them. */
export const quantizationFiles: Readonly<Record<string, string>> = {
  'quantize_config.json': 'GPTQ',
  'quant_config.json': 'AWQ',
  'hf_quant_config.json': 'NVIDIA ModelOpt',
  'quanto_qmap.json': 'quanto',
  'qmodel.pt': 'HQQ'
}

/** `quant_method`, in lower case and without punctuation, as its makers write it. */
const methodNames: Readonly<Record<string, string>> = {
  bitsandbytes: 'bitsandbytes',
  bitsandbytes4bit: 'bitsandbytes (4 bits)',
  bitsandbytes8bit: 'bitsandbytes (8 bits)',
  bnb: 'bitsandbytes',
  gptq: 'GPTQ',
  gptqmodel: 'GPTQ',
  awq: 'AWQ',
  autoawq: 'AWQ',
  autoround: 'AutoRound (auto-round)',
  intelautoround: 'AutoRound (auto-round)',
  mlx: 'MLX',
  torchao: 'torchao',
  compressedtensors: 'compressed-tensors',
  sparseml: 'compressed-tensors',
  fp8: 'FP8',
  finegrainedfp8: 'FP8',
  fbgemmfp8: 'FP8 (fbgemm_fp8)',
  modelopt: 'NVIDIA ModelOpt (modelopt)',
  quanto: 'quanto',
  optimumquanto: 'quanto',
  eetq: 'EETQ',
  hqq: 'HQQ',
  aqlm: 'AQLM',
  vptq: 'VPTQ',
  higgs: 'HIGGS',
  spqr: 'SpQR',
  bitnet: 'BitNet',
  quark: 'Quark',
  fpquant: 'FP-Quant',
  mxfp4: 'MXFP4',
  exl2: 'EXL2',
  exl3: 'EXL3',
  openvino: 'OpenVINO'
}

/**
 * What quantized the weights of a checkpoint, by its config.json; undefined where it says nothing of the kind. Reads
 * what transformers, MLX, vLLM and their tools write: on the top level, or in one of the nested configs.
 */
export function quantizedBy(config: unknown): string | undefined {
  if (!isObject(config)) return undefined
  for (const key of ['quantization_config', 'quantization', 'compression_config', 'quant_config']) {
    const method = methodOf(key, config[key])
    if (method !== undefined) return method
  }
  if (config['load_in_4bit'] === true) return 'bitsandbytes (4 bits)'
  if (config['load_in_8bit'] === true) return 'bitsandbytes (8 bits)'
  for (const key of ['text_config', 'vision_config', 'vlm_config']) {
    const method = quantizedBy(config[key])
    if (method !== undefined) return method
  }
  return undefined
}

function methodOf(key: string, value: unknown): string | undefined {
  if (!isObject(value)) return undefined
  const has = (name: string) => value[name] !== undefined && value[name] !== null
  const bits = (name: string) => {
    const count = value['bits'] ?? value['w_bit'] ?? value['nbits']
    return typeof count === 'number' ? `${name} (${count} bits)` : name
  }
  const stated = value['quant_method'] ?? value['quantization_method'] ?? value['method']
  // Some write the enumeration's own name: "QuantizationMethod.GPTQ".
  const plain = typeof stated === 'string' ? stated.toLowerCase().replace(/^.*method\.|[^a-z0-9]/g, '') : ''
  if (plain === 'none') return undefined
  const name = methodNames[plain] ?? stated
  if (plain !== '' && name !== 'bitsandbytes') return bits(name as string)
  if (value['load_in_4bit'] === true || value['_load_in_4bit'] === true) return 'bitsandbytes (4 bits)'
  if (value['load_in_8bit'] === true || value['_load_in_8bit'] === true) return 'bitsandbytes (8 bits)'
  if (name === 'bitsandbytes' && !('load_in_4bit' in value || 'load_in_8bit' in value)) return 'bitsandbytes'
  // Both switches off: bitsandbytes was configured and did nothing.
  if ('load_in_4bit' in value || 'load_in_8bit' in value) return undefined
  if (has('quant_algo') || isObject(value['producer'])) return 'NVIDIA ModelOpt (modelopt)'
  if (has('config_groups')) return 'compressed-tensors'
  if (has('zero_point') || has('w_bit') || has('q_group_size')) return bits('AWQ')
  if (has('desc_act') || has('damp_percent')) return bits('GPTQ')
  // MLX writes its own key, and repeats it under transformers' name.
  if (has('group_size') && has('bits')) return bits('MLX')
  if (has('quant_type')) return 'torchao'
  if (has('weights') && (has('activations') || has('modules_to_not_convert'))) return 'quanto'
  return Object.keys(value).length === 0 ? undefined : `a method that ${key} does not name`
}

/** What packed weights are called: patterns that one method's checkpoints have in common, the most telling first. */
const tensorPatterns: readonly [method: string, ...patterns: RegExp[]][] = [
  ['bitsandbytes (4 bits)', /\.quant_state\.bitsandbytes__/],
  ['bitsandbytes (4 bits)', /\.weight\.absmax$/],
  ['bitsandbytes (8 bits)', /\.SCB$/],
  ['EETQ', /\.weight_scales$/],
  ['compressed-tensors', /\.weight_packed$/],
  ['HQQ', /\.W_q$/],
  ['quanto', /\.weight\._data$/],
  ['quanto', /\.weight_qtype$/],
  ['torchao', /(?:_|:_?|\.)(?:qdata|tensor_impl|int_data|packed_weight)$/],
  ['AQLM', /\.codebooks$/],
  ['VPTQ', /\.centroids(?:\.|$)/],
  ['GPTQ', /\.g_idx$/],
  ['AWQ', /\.qweight$/],
  ['MXFP4', /_blocks$/, /_scales$/],
  ['NVIDIA ModelOpt (modelopt)', /\.weight_scale_2$/],
  ['FP8', /\.weight_scale(?:_inv)?$/],
  ['MLX', /\.scales$/, /\.biases$/]
]

/** The same from the tensors themselves, for checkpoints whose config.json is silent. */
export function quantizedTensors(tensors: readonly { name: string; type: string }[]): string | undefined {
  for (const [method, ...patterns] of tensorPatterns)
    if (patterns.every((pattern) => tensors.some(({ name }) => pattern.test(name)))) return method
  if (tensors.some(({ type }) => /^F8/.test(type))) return 'FP8'
  if (tensors.some(({ name, type }) => /\.weight$/.test(name) && /^[UI](8|32)$/.test(type)))
    return 'a method that the files do not name (integers as weights)'
  return undefined
}

/**
 * What every caller says of them. `where`: a folder, a file or a hub name; `base`: the original's name, where known.
 */
export function quantizedError(where: string, method: string, base?: string): PaliGemmaError {
  return new PaliGemmaError(
    'ERR_MODEL_UNSUPPORTED',
    `${where}: the weights are quantized with ${method}, and packed weights cannot be converted; use the original, ` +
      `unquantized model${base === undefined ? '' : ` (${base})`} in bfloat16, float16 or float32 and choose --type ` +
      'Q4_K_M for a small file, or dequantize this one with the tool that made it and save it again'
  )
}

/** Refuses a checkpoint by its config.json and the names of the files beside it; nothing else has to be there yet. */
export function refuseQuantized(where: string, config: unknown, files: readonly string[] = []): void {
  const file = files.find((name) => Object.hasOwn(quantizationFiles, name))
  const method = quantizedBy(config) ?? (file === undefined ? undefined : quantizationFiles[file])
  if (method === undefined) return
  const base = isObject(config) ? config['base_model_name_or_path'] : undefined
  throw quantizedError(where, method, typeof base === 'string' && base !== '' ? base : undefined)
}
