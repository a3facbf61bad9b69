/** PEFT directories: adapter_config.json and adapter_model.safetensors as changes of named matrices. */
import { join } from 'node:path'
import { PaliGemmaError } from '../../base/errors'
import { readJson } from '../../formats/fields'
import { peftSettings, type PeftSettings } from './peft-config'
import { peftWeights } from './peft-folder'
import { type PeftTensor, peftTensor } from './peft-names'
import { Safetensors } from '../../formats/safetensors'
import { someOf, type SourceTensor, toFloat32 } from '../../formats/source'

export interface Matrix {
  shape: number[]
  data: Float32Array
}

/** weight += b a; `b` is multiplied by alpha / rank (rslora: alpha / sqrt(rank)) already. */
export interface LowRankUpdate {
  /** The weight it changes, as `canonicalName` spells it; where it is no known one, as the adapter does. */
  target: string
  /** [rank, in], [out, rank]; missing where the file has only the other half. */
  a?: Matrix
  b?: Matrix
}

/** Rows that replace the base's, as training single tokens leaves them. */
export interface TokenRows {
  /** The field of adapter_config.json that names the tokens. */
  field: string
  indices: number[]
  /** [tokens, hidden], in the order of the indices. */
  rows: Matrix
}

export interface PeftAdapter {
  dir: string
  /** What it says it was trained on: a hub name or a path. */
  base?: string
  baseRevision?: string
  updates: LowRankUpdate[]
  /**
   * Whole tensors that replace the base's (`modules_to_save`, trained biases), by canonical name. They may be as large
   * as an embedding: `read` opens the file for a piece at a time.
   */
  replaced: Map<string, SourceTensor>
  /** Of the embedding. */
  tokens?: TokenRows
}

const embedding = 'text.embed_tokens.weight'
const head = 'lm_head.weight'

/**
 * Reads a PEFT directory whole.
 * @throws PaliGemmaError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED (other methods than LoRA,
 * settings that change what is computed)
 */
export async function readPeft(dir: string): Promise<PeftAdapter> {
  const settings = await readPeftSettings(dir)
  const source = await Safetensors.openFiles([await peftWeights(dir)])
  try {
    return await new Collection(dir, settings).read(source.tensors)
  } finally {
    await source.close()
  }
}

/** The settings alone: refuses an adapter before its weights are there. */
export async function readPeftSettings(dir: string): Promise<PeftSettings> {
  return peftSettings(await readJson(join(dir, 'adapter_config.json')))
}

class Collection {
  private readonly updates = new Map<string, LowRankUpdate & { module: string }>()
  private readonly replaced = new Map<string, SourceTensor>()
  private readonly rows = new Map<string, TokenRows>()
  private readonly twice: string[] = []
  private readonly unsupported: string[] = []

  constructor(
    private readonly dir: string,
    private readonly settings: PeftSettings
  ) {}

  async read(tensors: readonly SourceTensor[]): Promise<PeftAdapter> {
    for (const tensor of tensors) {
      const what = peftTensor(tensor.name)
      if (what.kind === 'nothing') continue
      if (what.kind === 'unsupported') this.unsupported.push(`${tensor.name} (${what.why})`)
      else if (what.kind === 'half' && tensor.shape.length < 2)
        this.unsupported.push(`${tensor.name} ([${tensor.shape.join(', ')}], no matrix)`)
      else if (!['F32', 'F16', 'BF16'].includes(tensor.type))
        this.unsupported.push(`${tensor.name} (${tensor.type}; only F32, F16 and BF16 are read)`)
      else await this.take(tensor, what)
    }
    const problem = (code: 'ERR_MODEL_INVALID' | 'ERR_MODEL_UNSUPPORTED', what: string) =>
      new PaliGemmaError(code, `${this.dir}: ${what}`)
    if (this.twice.length > 0) throw problem('ERR_MODEL_INVALID', `holds the same matrix twice: ${someOf(this.twice)}`)
    if (this.unsupported.length > 0)
      throw problem('ERR_MODEL_UNSUPPORTED', `cannot be used because of ${someOf(this.unsupported)}`)
    await this.tie()
    if (this.updates.size === 0 && this.replaced.size === 0 && this.rows.size === 0)
      throw problem('ERR_MODEL_INVALID', 'the adapter holds no tensors')
    this.scale()
    const tokens = this.rows.get(embedding)
    return {
      dir: this.dir,
      ...(this.settings.base !== undefined && { base: this.settings.base }),
      ...(this.settings.baseRevision !== undefined && { baseRevision: this.settings.baseRevision }),
      updates: [...this.updates.values()].map(({ module: _, ...update }) => update),
      replaced: this.replaced,
      ...(tokens && { tokens })
    }
  }

  private async take(tensor: SourceTensor, what: PeftTensor & { target: string }): Promise<void> {
    if (what.kind === 'whole') {
      if (this.replaced.has(what.target)) this.twice.push(tensor.name)
      this.replaced.set(what.target, reopened(tensor))
      return
    }
    const data = await readAll(tensor)
    const broken = data.findIndex((value) => !Number.isFinite(value))
    if (broken >= 0)
      throw new PaliGemmaError(
        'ERR_MODEL_INVALID',
        `${tensor.file}: tensor ${tensor.name} holds ${Number.isNaN(data[broken]) ? 'NaN' : 'infinity'} ` +
          `(value ${broken}); the training diverged or the file is damaged`
      )
    if (what.kind === 'half') {
      const update = this.updates.get(what.target) ?? { target: what.target, module: what.module }
      this.updates.set(what.target, update)
      if (update[what.side]) this.twice.push(tensor.name)
      update[what.side] = asMatrix(tensor.shape, data)
    } else if (what.kind === 'rows') {
      if (this.rows.has(what.target)) this.twice.push(tensor.name)
      this.rows.set(what.target, this.tokenRows(tensor, what.module, data))
    }
  }

  private tokenRows({ name, shape }: SourceTensor, module: string, data: Float32Array): TokenRows {
    const { file } = this.settings
    const tokens = this.settings.tokensOf(module)
    if (!tokens)
      throw new PaliGemmaError(
        'ERR_MODEL_INVALID',
        `${file}: trainable_token_indices does not say of which tokens ${name} holds the rows`
      )
    if (shape.length !== 2 || shape[0] !== tokens.indices.length)
      throw new PaliGemmaError(
        'ERR_MODEL_INVALID',
        `${file}: ${tokens.field} lists ${tokens.indices.length} tokens, but ${name} is [${shape.join(', ')}]`
      )
    return { ...tokens, rows: { shape, data } }
  }

  /** The head is the embedding: a copy of it says nothing new, anything else cannot be kept beside it. */
  private async tie(): Promise<void> {
    const [whole, own] = [this.replaced.get(head), this.replaced.get(embedding)]
    if (whole && !own && this.settings.ensuresTying) this.replaced.set(embedding, whole)
    else if (whole && !(own && (await isCopy(whole, own)))) throw this.untied('lm_head.weight', own !== undefined)
    this.replaced.delete(head)
    const [headRows, ownRows] = [this.rows.get(head), this.rows.get(embedding)]
    const sameRows =
      ownRows &&
      String(headRows?.indices) === String(ownRows.indices) &&
      sameValues(headRows!.rows.data, ownRows.rows.data, exact)
    if (headRows && !sameRows) throw this.untied("lm_head's trained tokens", ownRows !== undefined)
    const other = [...this.rows.keys()].find((target) => target !== embedding && target !== head)
    if (other !== undefined)
      throw new PaliGemmaError(
        'ERR_MODEL_UNSUPPORTED',
        `${this.dir}: single rows of ${other} were trained, but only those of the embedding can be replaced`
      )
  }

  private untied(what: string, differs: boolean): PaliGemmaError {
    return new PaliGemmaError(
      'ERR_MODEL_UNSUPPORTED',
      `${this.dir}: ${what} ${differs ? "differs from the embedding's" : 'was trained without the embedding'}, ` +
        'embed_tokens, ' +
        "but PaliGemma's LM head is its embedding; train both as one (PEFT: ensure_weight_tying=True)"
    )
  }

  private scale(): void {
    for (const { module, a, b } of this.updates.values()) {
      const rank = a?.shape[0]
      if (!b || !rank) continue
      const scale = this.settings.scaleOf(module, rank)
      for (let i = 0; i < b.data.length; i++) b.data[i]! *= scale
    }
  }
}

const exact = { relative: 0, absolute: 0 }
const rounding: Record<string, typeof exact> = {
  BF16: { relative: 2 ** -8, absolute: 0 },
  F16: { relative: 2 ** -11, absolute: 2 ** -25 } // with subnormal numbers
}

/** The same values, as far as the types that they were stored in can tell. */
async function isCopy(a: SourceTensor, b: SourceTensor): Promise<boolean> {
  if (String(a.shape) !== String(b.shape)) return false
  const coarser = ['BF16', 'F16'].find((type) => a.type === type || b.type === type)
  const tolerance = a.type === b.type || coarser === undefined ? exact : rounding[coarser]!
  const count = a.shape.reduce((product, n) => product * n, 1)
  const step = 1 << 20
  for (let first = 0; first < count; first += step) {
    const size = Math.min(step, count - first)
    const [one, other] = await Promise.all([a, b].map(async (tensor) => await readPart(tensor, first, size)))
    if (!sameValues(one!, other!, tolerance)) return false
  }
  return true
}

function sameValues(a: Float32Array, b: Float32Array, { relative, absolute }: typeof exact): boolean {
  if (a.length !== b.length) return false
  return a.every((value, i) => {
    const other = b[i]!
    return (
      value === other || Math.abs(value - other) <= absolute + relative * Math.max(Math.abs(value), Math.abs(other))
    )
  })
}

/** Elements of a tensor of plain type. */
async function readPart(tensor: SourceTensor, first: number, count: number): Promise<Float32Array> {
  const width = tensor.type === 'F32' ? 4 : 2
  const bytes = Buffer.alloc(count * width)
  await tensor.read(first * width, bytes)
  return toFloat32(bytes, tensor.type)
}

/** The tensor for later: its file is open only while a piece of it is read. */
function reopened(tensor: SourceTensor): SourceTensor {
  return {
    ...tensor,
    read: async (start, target) => {
      const source = await Safetensors.openFiles([tensor.file])
      try {
        const again = source.tensors.find(({ name }) => name === tensor.name)
        if (again?.bytes !== tensor.bytes)
          throw new PaliGemmaError('ERR_MODEL_INVALID', `${tensor.file} changed while it was read`)
        await again.read(start, target)
      } finally {
        await source.close()
      }
    }
  }
}

async function readAll(tensor: SourceTensor): Promise<Float32Array> {
  return await readPart(
    tensor,
    0,
    tensor.shape.reduce((product, n) => product * n, 1)
  )
}

/** Convolutions are matrices over flattened patches: [rank, 3, p, p] and [out, rank, 1, 1]. */
function asMatrix([rows = 0, ...rest]: number[], data: Float32Array): Matrix {
  return { shape: [rows, rest.reduce((product, n) => product * n, 1)], data }
}
