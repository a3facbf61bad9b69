/** A training session of the engine, and what it begins with. */
import type { WithPaths } from '../../base/validate'
import { loraScale, moduleMatrix, type LoraSettings } from '../../convert/adapters/trained'
import type { NativeFit } from '../../engine/native'
import type { FloatTensor } from '../../formats/safetensors-writer'
import { type FitOptions, withDefaults } from '../../train/options'
import { readStart } from '../../train/start'
import { targetModules } from '../../train/targets'
import type { ReadyExample } from './fit-pictures'
import type { EndEvent, ModelHost } from '../request/host'

type Tensors = ReadonlyMap<string, FloatTensor>

export interface Beginning {
  settings: LoraSettings
  /** Of the adapter that it starts from. */
  config?: Readonly<Record<string, unknown>> | undefined
  /** What tells it from others, for checkpoints. */
  identity: unknown
  /** As the engine takes it. */
  native: { tensors: Record<string, FloatTensor> } | { targets: string[]; rank: number; seed: number }
  /** The engine's tensors by the names of modules. */
  named: (tensors: Tensors) => Tensors
}

type Half = 'A' | 'B'
const engineName = (matrix: string, half: Half): string => `${matrix}.weight.lora_${half.toLowerCase()}`

/** The adapter of `from`, or a new one. */
export async function beginning(host: ModelHost, options: WithPaths<FitOptions>): Promise<Beginning> {
  if (options.from === undefined) {
    const { rank, targets, seed } = withDefaults(options)
    const { alpha = 2 * rank, rslora = false } = options
    const modules = targetModules(targets, host.info)
    const matrices = modules.map((module) => moduleMatrix(module)!)
    return {
      settings: { rank, alpha, rslora },
      identity: { rank, alpha, rslora, modules: modules.length, targets },
      native: { targets: matrices, rank, seed },
      named: namer(modules)
    }
  }
  const { settings, config, tensors } = await readStart(options.from)
  const modules = [...new Set([...tensors.keys()].map((name) => name.slice(0, -7)))]
  const native = [...tensors].map(([name, tensor]) => {
    return [engineName(moduleMatrix(name.slice(0, -7))!, name.slice(-1) as Half), tensor] as const
  })
  return {
    ...{ settings, config, named: namer(modules) },
    identity: { ...settings, from: modules.length },
    native: { tensors: Object.fromEntries(native) }
  }
}

function namer(modules: readonly string[]): Beginning['named'] {
  return (tensors) => {
    const named = new Map<string, FloatTensor>()
    for (const module of modules)
      for (const half of ['A', 'B'] as const)
        named.set(`${module}.lora_${half}`, tensors.get(engineName(moduleMatrix(module)!, half))!)
    return named
  }
}

let sessions = 0

type Action = NativeFit extends infer Fit ? (Fit extends unknown ? Omit<Fit, 'session'> : never) : never

export class FitSession {
  private readonly number = ++sessions

  private constructor(
    private readonly host: ModelHost,
    private readonly signal: AbortSignal
  ) {}

  /** `tensors`: those of a checkpoint, with moments, instead of the beginning's. */
  static async begin(
    host: ModelHost,
    { settings, native }: Beginning,
    tensors: Tensors | undefined,
    signal: AbortSignal
  ): Promise<FitSession> {
    const session = new FitSession(host, signal)
    const start = tensors ? { tensors: Object.fromEntries(tensors) } : native
    try {
      await session.run({ action: 'begin', scale: loraScale(settings), ...start })
      return session
    } catch (error) {
      await session.end() // an abort may have come after the engine began
      throw error
    }
  }

  async example(
    { example, images }: ReadyExample,
    how: { train: boolean; dropout?: number; seed?: number; number?: number }
  ): Promise<{ loss: number; suffixTokens: number; tokens: number }> {
    const { prompt, response: suffix } = example
    const { values, usage } = await this.run({ action: 'example', ...how }, { images, prompt, suffix })
    const suffixTokens = usage.completionTokens
    return { loss: values![0]!, suffixTokens, tokens: usage.imageTokens + usage.promptTokens + suffixTokens }
  }

  /** The norm of the gradient. */
  async update(step: { step: number; rate: number; decay: number; clip: number }): Promise<number> {
    return (await this.run({ action: 'update', ...step })).values![0]!
  }

  /** By the engine's names. Also after an abort. */
  async read(what: { moments?: boolean; gradients?: boolean }): Promise<Map<string, FloatTensor>> {
    const { stages = [] } = await this.run({ action: 'read', ...what }, {}, false)
    return new Map(stages.map(({ name, rows, cols, data }) => [name, { shape: [rows, cols], data }]))
  }

  async end(): Promise<void> {
    if (this.host.disposed) return
    await this.run({ action: 'end' }, {}, false).catch(() => {}) // the model is being disposed
  }

  private async run(
    action: Action,
    request: { images?: ReadyExample['images']; prompt?: string; suffix?: string } = {},
    abortable = true
  ): Promise<EndEvent> {
    const fit = { session: this.number, ...action } as NativeFit
    const end = await this.host.run(
      { kind: 'fit', images: [], prompt: '', ...request, fit },
      abortable ? { signal: this.signal } : {}
    )
    return end!
  }
}
