/** How far a batch is: a line on a terminal, one a minute in logs, a summary at the end. */
import { type Context, counted } from '../context'
import { type Progress, progress } from '../progress'

const logEveryMs = 60_000

export class Report {
  #done = 0
  #failed = 0
  #known = 0
  #logged = performance.now()
  readonly #bar: Progress
  readonly #start = performance.now()

  constructor(
    private readonly context: Context,
    private readonly total: number | undefined,
    private readonly before: number
  ) {
    this.#bar = progress(context, 'pictures')
  }

  /** A picture that has its row since an earlier run. */
  known(): void {
    this.#known++
  }

  done(failed: boolean): void {
    this.#done++
    if (failed) this.#failed++
    const at = this.#known + this.#done
    if (this.total === undefined) this.#bar.update(undefined, `${at}, ${this.#line()}`)
    else this.#bar.update(at / this.total, this.#line())
    if (this.context.stderr.isTTY || performance.now() - this.#logged < logEveryMs) return
    this.#logged = performance.now()
    this.context.stderr.write(`${at}${this.total === undefined ? '' : ` of ${this.total}`} pictures, ${this.#line()}\n`)
  }

  #line(): string {
    return `${this.#rate()} pictures/s${this.#failed > 0 ? `, ${this.#failed} failed` : ''}`
  }

  #rate(): number {
    const seconds = Math.max((performance.now() - this.#start) / 1000, 0.001)
    return Number((this.#done / seconds).toPrecision(3))
  }

  pause(): void {
    this.#bar.done()
  }

  /** "12 pictures: 11 ok, 1 failed, 3.4 pictures/s". `failed`: of all rows. */
  end(failed: number): void {
    this.#bar.done()
    const all = this.before + this.#done
    const rate = this.#done > 0 ? `, ${this.#rate()} pictures/s` : ''
    const earlier = this.#known > 0 ? `, ${this.#known} were done before` : ''
    const rest = this.total !== undefined && this.#known + this.#done < this.total
    const hint = rest || this.context.signal.aborted ? '; the same command goes on from here' : ''
    this.context.stderr.write(
      `${counted(all, 'pictures')}: ${all - failed} ok, ${failed} failed${earlier}${rate}${hint}\n`
    )
  }
}
