/** An adapter that `fit` has made: its tensors, and the files that others read. */
import { join } from 'node:path'
import { checkOutput, makeFolder, writeOutput } from '../../base/output-file'
import { layoutGguf } from '../../formats/gguf-writer'
import { type FloatTensor, safetensorsBytes } from '../../formats/safetensors-writer'
import { rule, take } from '../../base/validate'
import { canonicalName, matrixName } from '../checkpoint/names'

/** What an adapter computes beside its tensors. */
export interface LoraSettings {
  rank: number
  alpha: number
  /** alpha / sqrt(rank) instead of alpha / rank. */
  rslora: boolean
}

export const loraScale = ({ rank, alpha, rslora }: LoraSettings): number => alpha / (rslora ? Math.sqrt(rank) : rank)

/** The GGUF name of a module's matrix, "blk.0.attn_q"; undefined for what adapters do not change. */
export function moduleMatrix(module: string): string | undefined {
  const canonical = canonicalName(`${module}.weight`)
  return canonical === undefined ? undefined : matrixName(canonical)?.replace(/\.weight$/, '')
}

/**
 * A trained LoRA adapter. Give it to `adapters` of any call of the model that it was trained on, or of
 * {@link loadModel}; `save` writes files for everybody else.
 */
export class TrainedAdapter {
  /** Modules by Hugging Face's names. */
  readonly modules: readonly string[]
  /** Of all its matrices. */
  readonly rank: number
  /** What it adds is multiplied by alpha / rank, with `rslora` by alpha / sqrt(rank). */
  readonly alpha: number
  /** See `alpha`. */
  readonly rslora: boolean
  /** Values that were trained. */
  readonly parameters: number
  /** "<module>.lora_A" [rank, in] and "<module>.lora_B" [out, rank], without the scale. */
  readonly #tensors: ReadonlyMap<string, FloatTensor>
  readonly #config: Readonly<Record<string, unknown>>
  readonly #architecture: string
  readonly #sources: readonly string[]

  /** @internal */
  constructor(made: {
    tensors: ReadonlyMap<string, FloatTensor>
    settings: LoraSettings
    architecture: string
    /** Fields of the adapter_config.json that it started from. */
    config?: Readonly<Record<string, unknown>> | undefined
    /** Files of the model that it was trained on: it is never saved in place of one of them. */
    sources?: readonly string[] | undefined
  }) {
    this.#tensors = made.tensors
    this.#config = made.config ?? {}
    this.#architecture = made.architecture
    this.#sources = made.sources ?? []
    this.rank = made.settings.rank
    this.alpha = made.settings.alpha
    this.rslora = made.settings.rslora
    const names = [...made.tensors.keys()]
    this.modules = names.filter((name) => name.endsWith('.lora_A')).map((name) => name.slice(0, -7))
    this.parameters = [...made.tensors.values()].reduce((sum, { data }) => sum + data.length, 0)
  }

  /** Its tensors by name, as they are in memory: "<module>.lora_A" [rank, in], "<module>.lora_B" [out, rank]. */
  get tensors(): ReadonlyMap<string, FloatTensor> {
    return this.#tensors
  }

  /**
   * Writes a folder as PEFT does (adapter_config.json, adapter_model.safetensors), or one GGUF adapter where the path
   * ends in ".gguf".
   * @throws PaliGemmaError ERR_INVALID_OPTION, ERR_ACCESS_DENIED, ERR_DISK_FULL
   */
  async save(path: string | URL): Promise<void> {
    const target = take('path', path, rule.file) as string
    const options = { option: 'path', sources: this.#sources }
    if (/\.gguf$/i.test(target)) {
      await checkOutput(target, options)
      return await writeOutput(target, await this.#gguf(), options)
    }
    await makeFolder(target, 'path')
    const named = new Map([...this.#tensors].map(([name, tensor]) => [`base_model.model.${name}.weight`, tensor]))
    await writeOutput(join(target, 'adapter_model.safetensors'), safetensorsBytes(named), options)
    const config = JSON.stringify(this.#peftConfig(), undefined, 2)
    await writeOutput(join(target, 'adapter_config.json'), `${config}\n`, options)
  }

  #peftConfig(): Record<string, unknown> {
    return {
      base_model_name_or_path: null,
      bias: 'none',
      fan_in_fan_out: false,
      init_lora_weights: true,
      lora_dropout: 0,
      modules_to_save: null,
      task_type: 'CAUSAL_LM',
      // whole paths: names alone would be found in the tower and in the text model
      target_modules: [...this.modules],
      ...this.#config,
      peft_type: 'LORA',
      inference_mode: true,
      r: this.rank,
      lora_alpha: this.alpha,
      use_rslora: this.rslora
    }
  }

  /** As the engine and llama.cpp read it. */
  async #gguf(): Promise<Buffer> {
    const tensors = [...this.#tensors].map(([name, tensor]) => ({
      name: `${moduleMatrix(name.slice(0, -7))}.weight.lora_${name.endsWith('A') ? 'a' : 'b'}`,
      type: 'F32',
      ...tensor
    }))
    const layout = await layoutGguf(
      [
        ['general.type', { type: 'string', value: 'adapter' }],
        ['general.architecture', { type: 'string', value: this.#architecture }],
        ['adapter.type', { type: 'string', value: 'lora' }],
        // the factor is alpha / rank
        ['adapter.lora.alpha', { type: 'f32', value: loraScale(this) * this.rank }]
      ],
      tensors
    )
    const bytes = Buffer.alloc(layout.bytes)
    layout.header.copy(bytes)
    for (const [i, { data }] of tensors.entries())
      bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), layout.offsets[i])
    return bytes
  }

  /** As the engine takes it: by GGUF's names, the scale in B. @internal */
  engineTensors(): Record<string, { shape: number[]; data: Float32Array }> {
    const scale = loraScale(this)
    const named = [...this.#tensors].map(([name, { shape, data }]) => {
      const isA = name.endsWith('A')
      const matrix = `${moduleMatrix(name.slice(0, -7))}.weight.lora_${isA ? 'a' : 'b'}`
      return [matrix, { shape, data: isA ? data : data.map((value) => value * scale) }] as const
    })
    return Object.fromEntries(named)
  }
}
