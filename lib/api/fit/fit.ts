/** Training of a LoRA adapter: examples go to the engine one at a time, so that other requests have their turns. */
import type { WithPaths } from '../../base/validate'
import type { Taken } from '../../base/call'
import { PaliGemmaError } from '../../base/errors'
import { workingFolder } from '../../base/paths'
import { TrainedAdapter } from '../../convert/adapters/trained'
import { filesRead } from '../../convert/inputs'
import { type Checkpoint, readCheckpoint, type RunSettings, writeCheckpoint } from '../../train/checkpoint'
import { fingerprint, takeExamples, type TakenExample } from '../../train/examples'
import { type FitOptions, type FitResult, withDefaults } from '../../train/options'
import { batchOf, type Order, type Plan, rateOf, stepsPerEpoch } from '../../train/schedule'
import { Pictures } from './fit-pictures'
import { beginning, type Beginning, FitSession } from './fit-session'
import type { ModelHost } from '../request/host'

export async function fitAdapter(
  host: ModelHost,
  examples: unknown,
  options: Taken<WithPaths<FitOptions>>
): Promise<FitResult> {
  host.throwIfDisposed()
  checkTogether(options)
  const { signal, evaluate } = options
  const folder = workingFolder() // of the call: it may change while examples come
  const data = await takeExamples('examples', examples, signal, folder)
  const heldOut = evaluate === undefined ? [] : await takeExamples('evaluate', evaluate, signal, folder)
  const start = await beginning(host, options)
  const identity = await fingerprint(data)
  return await host.admit(async () => await new Run(host, data, heldOut, start, identity, options).go())
}

function checkTogether({ from, rank, alpha, targets, rslora, resume, checkpoint }: FitOptions): void {
  const wrong = (text: string): PaliGemmaError => new PaliGemmaError('ERR_INVALID_OPTION', text)
  for (const [name, value] of Object.entries({ rank, alpha, targets, rslora })) {
    if (from !== undefined && value !== undefined)
      throw wrong(`Expected no ${name} beside from, whose adapter has one, but received both`)
  }
  if (resume && checkpoint === undefined)
    throw wrong('Expected checkpoint, the folder to go on from, beside resume but received none')
}

/** Steps from one checkpoint to the next, where epochs are longer. */
const mostBetween = 50

class Run {
  private readonly order: Order
  private readonly plan: Plan
  private readonly pictures: Pictures
  private readonly settings: RunSettings
  private readonly losses: number[] = []
  private readonly evaluation: FitResult['evaluation'] = []
  private step = 0

  constructor(
    private readonly host: ModelHost,
    private readonly data: TakenExample[],
    private readonly heldOut: TakenExample[],
    private readonly start: Beginning,
    identity: string,
    private readonly options: Taken<WithPaths<FitOptions>>
  ) {
    const { batchSize, shuffle, seed, epochs, learningRate, warmup, schedule, weightDecay, clip, dropout } =
      withDefaults(options)
    this.order = { count: data.length, batchSize, shuffle, seed }
    const total = options.steps ?? epochs * stepsPerEpoch(this.order)
    this.plan = { learningRate, warmup, schedule, total }
    this.pictures = new Pictures(host, options.signal)
    this.settings = {
      ...{ ...this.order, count: undefined, examples: identity, steps: total },
      ...{ learningRate, warmup, schedule, weightDecay, clip, dropout },
      ...{ adapter: start.identity, model: `${host.info.architecture}, ${host.info.parameters} parameters` }
    }
  }

  async go(): Promise<FitResult> {
    const { checkpoint, resume } = this.options
    const before = checkpoint !== undefined && resume ? await readCheckpoint(checkpoint, this.settings) : undefined
    if (before) this.take(before)
    const session = await FitSession.begin(this.host, this.start, before?.tensors, this.options.signal)
    try {
      await this.steps(session)
      return { adapter: await this.adapter(session), losses: this.losses, evaluation: this.evaluation }
    } catch (error) {
      await this.keepLast(session)
      throw error
    } finally {
      await session.end()
    }
  }

  private take({ step, losses, evaluation }: Checkpoint): void {
    this.step = step
    this.losses.push(...losses)
    this.evaluation.push(...evaluation)
  }

  private async steps(session: FitSession): Promise<void> {
    const every = this.options.checkpointEvery ?? Math.min(mostBetween, stepsPerEpoch(this.order))
    const evaluateEvery = this.options.evaluateEvery ?? stepsPerEpoch(this.order)
    const upcoming = this.pictures.ahead(this.remaining())
    try {
      while (this.step < this.plan.total) {
        await this.oneStep(session, upcoming)
        const last = this.step === this.plan.total
        if (this.heldOut.length > 0 && (last || this.step % evaluateEvery === 0)) await this.evaluate(session)
        if (last || this.step % every === 0) await this.save(session)
      }
    } finally {
      await upcoming.return(undefined)
    }
  }

  /** The examples of all steps that are left, in order. */
  private *remaining(): Iterable<TakenExample> {
    for (let step = this.step; step < this.plan.total; step++)
      for (const index of batchOf(step, this.order)) yield this.data[index]!
  }

  private async oneStep(session: FitSession, upcoming: ReturnType<Pictures['ahead']>): Promise<void> {
    const { weightDecay, clip, dropout, seed, batchSize } = withDefaults(this.options)
    const begun = performance.now()
    const batch = batchOf(this.step, this.order)
    let [sum, suffix, tokens] = [0, 0, 0]
    for (const [at, index] of batch.entries()) {
      const number = this.step * batchSize + at
      const next = await this.named(this.data[index]!, async () => (await upcoming.next()).value!)
      const done = await this.named(
        next.example,
        async () => await session.example(next, { train: true, dropout, seed, number })
      )
      sum += done.loss
      suffix += done.suffixTokens
      tokens += done.tokens
    }
    const learningRate = rateOf(this.step, this.plan)
    const gradNorm = await this.named(undefined, async () =>
      session.update({ step: this.step + 1, rate: learningRate, decay: weightDecay, clip })
    )
    const loss = sum / suffix
    const epoch = Math.floor(this.step / stepsPerEpoch(this.order)) + 1
    this.losses.push(loss)
    this.step++
    const { step, plan } = this
    const ms = performance.now() - begun
    this.options.onStep?.({
      ...{ step, steps: plan.total, epoch, loss, learningRate, gradNorm },
      ...{ examples: batch, tokens, ms }
    })
  }

  private async evaluate(session: FitSession): Promise<void> {
    let [sum, suffix] = [0, 0]
    for await (const next of this.pictures.ahead(this.heldOut)) {
      const done = await this.named(next.example, async () => await session.example(next, { train: false }))
      sum += done.loss
      suffix += done.suffixTokens
    }
    const evaluation = { step: this.step, loss: sum / suffix }
    this.evaluation.push(evaluation)
    this.options.onEvaluate?.(evaluation)
  }

  private async save(session: FitSession): Promise<void> {
    if (this.options.checkpoint === undefined) return
    const tensors = await session.read({ moments: true })
    const { step, losses, evaluation } = this
    await writeCheckpoint(this.options.checkpoint, this.settings, { step, losses, evaluation, tensors })
  }

  /** After a failure the values are still those of the last whole step. */
  private async keepLast(session: FitSession): Promise<void> {
    if (this.step === 0) return
    try {
      await this.save(session)
    } catch {
      // the first error says more; the checkpoint before is still there
    }
  }

  private async adapter(session: FitSession): Promise<TrainedAdapter> {
    const { settings } = this.start
    const { dropout } = withDefaults(this.options)
    const config = { ...this.start.config, ...(dropout > 0 && { lora_dropout: dropout }) }
    const tensors = this.start.named(await session.read({}))
    const { model, vision, maskDecoder } = this.host.options
    const sources = await filesRead({ source: [model, vision], maskDecoder })
    return new TrainedAdapter({ tensors, settings, config, architecture: this.host.info.architecture, sources })
  }

  /** Errors say where in the run they came. */
  private async named<T>(example: TakenExample | undefined, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof PaliGemmaError) || error.code === 'ERR_DISPOSED') throw error
      const diverged = error.code === 'ERR_MODEL_INVALID' && /not finite|not a number/.test(error.message)
      const where = `step ${this.step + 1} of ${this.plan.total}${example ? `, ${example.name}` : ''}`
      throw new PaliGemmaError(
        diverged ? 'ERR_TRAINING_DIVERGED' : error.code,
        diverged
          ? `Training diverged in ${where}: numbers are not finite any more. Lower learningRate, or set clip; the ` +
              'adapter is as it was before this step'
          : `${where}: ${error.message}`,
        { cause: error }
      )
    }
  }
}
