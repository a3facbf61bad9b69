/** adapter_config.json: what is computed from it, what does no harm, and what is refused by name. */
import { createContext, Script } from 'node:vm'
import { PaliGemmaError } from '../../base/errors'
import { type Fields, isObject } from '../../formats/fields'

export interface PeftSettings {
  /** Path of adapter_config.json, for messages. */
  file: string
  /** What the adapter says it was trained on: a hub name or a path. */
  base?: string
  /** Of the base. */
  baseRevision?: string
  /** alpha / rank of a module, as PEFT names it; `rank` is that of its tensors. */
  scaleOf(module: string, rank: number): number
  /** The tokens whose rows of this module were trained, in the order of the rows. */
  tokensOf(module: string): { field: string; indices: number[] } | undefined
  /** Whether a head that was saved alone is the embedding as well. */
  ensuresTying: boolean
}

/** Which modules were trained, how that went, and where; for what is computed the tensors speak. */
const harmless = new Set([
  ...[
    'peft_type',
    'task_type',
    'auto_mapping',
    'peft_version',
    'base_model_name_or_path',
    'base_model_class',
    'revision'
  ],
  ...['inference_mode', 'runtime_config', 'merge_weights', 'lora_dropout', 'bias', 'modules_to_save', 'init_weights'],
  ...['target_modules', 'exclude_modules', 'layers_to_transform', 'layers_pattern'],
  // Of Conv1D layers; for the linear ones of this model PEFT sets it to false, with a warning.
  'fan_in_fan_out',
  // Read at the start of a training only, and only by the init_lora_weights of their names.
  ...['loftq_config', 'eva_config', 'corda_config', 'lora_ga_config'],
  // Learning rates and the type in training, of ms-swift.
  ...['swift_type', 'lora_dtype', 'lorap_lr_ratio', 'lorap_emb_lr'],
  // Without the field that they belong to they mean nothing.
  ...['megatron_core', 'qalora_group_size']
])
const computed = new Set([
  ...['r', 'rank_pattern', 'lora_alpha', 'alpha_pattern', 'use_rslora', 'init_lora_weights'],
  ...['trainable_token_indices', 'token_indices', 'ensure_weight_tying']
])
const mergeAdvice = 'merge it with PEFT (merge_and_unload) and convert the merged model'
const refused: Readonly<Record<string, string>> = {
  use_dora: `but DoRA is not a sum; ${mergeAdvice}`,
  lora_bias: `but a bias that is trained beside lora_B is not added; ${mergeAdvice}`,
  use_qalora: `but QALoRA's lora_A takes averages of groups; ${mergeAdvice}`,
  alora_invocation_tokens:
    'but an activated LoRA works from its invocation tokens on only, and this engine applies adapters to whole ' +
    'requests; train the adapter without it',
  layer_replication: `but layers cannot be repeated; ${mergeAdvice}`,
  target_parameters: `but only modules can be changed; ${mergeAdvice}`
}

/** Reads the settings and refuses every one that would change what is computed. */
export function peftSettings(config: Fields): PeftSettings {
  const method = config.string('peft_type', 'LORA')
  if (method !== 'LORA' && method !== 'TRAINABLE_TOKENS')
    config.unsupported('peft_type', `but only LORA adapters (and TRAINABLE_TOKENS) can be used; ${mergeAdvice}`)
  checkFields(config)
  checkInit(config)
  const [base, revision] = [config.string('base_model_name_or_path', ''), config.string('revision', '')]
  return {
    file: config.file,
    ...(base !== '' && { base }),
    ...(revision !== '' && { baseRevision: revision }),
    scaleOf: scales(config),
    tokensOf: tokens(config),
    ensuresTying: config.boolean('ensure_weight_tying', false)
  }
}

/** PEFT writes every field of its version; those that it leaves off are null, false or empty. */
function isOff(value: unknown): boolean {
  if (Array.isArray(value)) return value.length === 0
  return (
    value === null || value === undefined || value === false || (isObject(value) && Object.keys(value).length === 0)
  )
}

function checkFields(config: Fields): void {
  for (const [name, value] of Object.entries(config.values)) {
    if (harmless.has(name) || computed.has(name) || isOff(value)) continue
    config.unsupported(
      name,
      Object.hasOwn(refused, name)
        ? refused[name]!
        : `a setting that is not known here and may change what is computed; ${mergeAdvice}`
    )
  }
}

/** Some ways to begin take a part out of the base's weights, which a published base still has. */
function checkInit(config: Fields): void {
  if (!config.has('init_lora_weights')) return
  const value = config.values['init_lora_weights']
  // B A is zero when training begins: the base stays as it is.
  if (typeof value === 'boolean') return
  if (typeof value === 'string' && ['gaussian', 'eva', 'orthogonal', 'mica'].includes(value.toLowerCase())) return
  const converts = typeof value === 'string' && /^(?:pissa|olora|corda|lora_ga)/i.test(value)
  config.unsupported(
    'init_lora_weights',
    'which changes the weights of the base when training begins, so that the adapter does not fit the published ' +
      'ones; ' +
      (converts
        ? 'save it as an ordinary adapter (PEFT: save_pretrained with path_initial_model_for_weight_conversion), or '
        : '') +
      mergeAdvice
  )
}

/**
 * The patterns of alpha_pattern and rank_pattern, matched as PEFT does: the whole module path, or its end after a dot.
 */
function patterns(config: Fields, field: string): (module: string) => number | undefined {
  const table = config.object(field, true)
  const list = Object.keys(table.values).map((key) => ({ matches: matcher(table, key), value: table.number(key) }))
  return (module) => list.find(({ matches }) => matches(module))?.value
}

// Module paths are short: what takes longer tries every way to match, and would go on for years.
const patternMs = 100

function matcher(table: Fields, key: string): (module: string) => boolean {
  if (/^[\w.]+$/.test(key) && !key.includes('..')) {
    // Almost always a plain path, in which a dot stands for itself or, where PEFT reads it as a pattern, for any
    // character.
    const plain = new RegExp(`^(?:.*\\.)?${key}$`)
    return (module) => plain.test(module)
  }
  let pattern: RegExp
  try {
    pattern = new RegExp(`^(?:.*\\.)?(?:${key})$`)
  } catch (cause) {
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${table.file}: ${table.path('')}${JSON.stringify(key)} is no regular expression`,
      { cause }
    )
  }
  const context = createContext({ pattern, module: '' })
  const script = new Script('pattern.test(module)')
  return (module) => {
    context['module'] = module
    try {
      return withinTime(() => script.runInContext(context, { timeout: patternMs }) as boolean)
    } catch (cause) {
      throw new PaliGemmaError(
        'ERR_MODEL_INVALID',
        `${table.file}: ${table.path('')}${JSON.stringify(key)} takes more than ${patternMs} ms to match ${module}`,
        { cause }
      )
    }
  }
}

/** The limit is one of wall time: on a machine that hardly lets this process compute, it is no fault of the pattern. */
function withinTime(match: () => boolean): boolean {
  for (let tries = 1; ; tries++) {
    const before = process.cpuUsage()
    try {
      return match()
    } catch (error) {
      const { user, system } = process.cpuUsage(before)
      if (tries === 10 || (user + system) / 1000 > patternMs / 2) throw error
    }
  }
}

function scales(config: Fields): PeftSettings['scaleOf'] {
  const alpha = config.number('lora_alpha', 8)
  const rslora = config.boolean('use_rslora', false)
  const r = config.has('r') ? config.integer('r', 1) : undefined
  const [alphaOf, rankOf] = [patterns(config, 'alpha_pattern'), patterns(config, 'rank_pattern')]
  return (module, rank) => {
    const own = rankOf(module)
    const stated = own ?? r
    if (stated !== undefined && stated !== rank) {
      throw new PaliGemmaError(
        'ERR_MODEL_INVALID',
        `${config.file}: ${own === undefined ? 'r' : 'rank_pattern'} says rank ${stated} for ${module}, ` +
          `but its lora_A has ${rank} rows; config and weights are of different adapters`
      )
    }
    return (alphaOf(module) ?? alpha) / (rslora ? Math.sqrt(rank) : rank)
  }
}

/**
 * `trainable_token_indices`: a list, for the embedding, or lists by module; `token_indices` of TRAINABLE_TOKENS: a
 * list.
 */
function tokens(config: Fields): PeftSettings['tokensOf'] {
  const field = config.has('trainable_token_indices') ? 'trainable_token_indices' : 'token_indices'
  if (!config.has(field)) return () => undefined
  const value = config.values[field]
  if (!isObject(value)) {
    const indices = indexList(config, field)
    const everywhere = field === 'token_indices'
    return (module) => (everywhere || isNamed(module, 'embed_tokens') ? { field, indices } : undefined)
  }
  const byModule = config.object(field)
  const lists = Object.keys(value).map((name) => ({ name, indices: indexList(byModule, name) }))
  return (module) => {
    const found = lists.find(({ name }) => isNamed(module, name))
    return found && { field: byModule.path(found.name), indices: found.indices }
  }
}

const isNamed = (module: string, name: string): boolean => module === name || module.endsWith(`.${name}`)

function indexList(config: Fields, name: string): number[] {
  const value = config.values[name]
  const valid = Array.isArray(value) && value.every((index) => Number.isSafeInteger(index) && index >= 0)
  if (!valid) config.fail(name, 'a list of token ids')
  if (new Set(value).size < value.length) config.fail(name, 'a list of token ids without repetitions')
  return value as number[]
}
