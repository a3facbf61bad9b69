/** What Prometheus is told. */
import { Counter, Gauge, Histogram, Registry } from './vendored'
import type { ModelStats } from '../api/info'
import type { GenerateResult } from '../api/options/results'

const seconds = [0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300]
const rates = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]

interface Gauges {
  running: () => number
  models: () => [name: string, loaded: boolean][]
  stats: () => [name: string, stats: ModelStats][]
}

type Timed = Pick<GenerateResult, 'usage' | 'timings'>

export class Metrics {
  private readonly registry = new Registry()
  private readonly shared = { registers: [this.registry] }

  private readonly requests = new Counter({
    ...this.shared,
    name: 'paligemma_requests_total',
    help: 'Requests by path and status',
    labelNames: ['path', 'status'] as const
  })
  private readonly errors = new Counter({
    ...this.shared,
    name: 'paligemma_errors_total',
    help: 'Failed requests by error code',
    labelNames: ['code'] as const
  })
  private readonly duration = new Histogram({
    ...this.shared,
    name: 'paligemma_request_duration_seconds',
    help: 'From the request to the end of its answer',
    labelNames: ['path'] as const,
    buckets: seconds
  })
  private readonly firstToken = new Histogram({
    ...this.shared,
    name: 'paligemma_time_to_first_token_seconds',
    help: 'From the call to the first token',
    labelNames: ['model'] as const,
    buckets: seconds
  })
  private readonly queued = new Histogram({
    ...this.shared,
    name: 'paligemma_queue_seconds',
    help: 'Waiting for other requests on the same model',
    labelNames: ['model'] as const,
    buckets: seconds
  })
  private readonly rate = new Histogram({
    ...this.shared,
    name: 'paligemma_tokens_per_second',
    help: 'Decoding speed of single requests',
    labelNames: ['model'] as const,
    buckets: rates
  })
  private readonly tokens = new Counter({
    ...this.shared,
    name: 'paligemma_tokens_total',
    help: 'Tokens by model and kind: image, prompt, completion',
    labelNames: ['model', 'kind'] as const
  })

  /** `gauges`: read when somebody asks. */
  constructor(gauges: Gauges) {
    new Gauge({
      ...this.shared,
      name: 'paligemma_requests_running',
      help: 'Requests under way or waiting',
      collect() {
        this.set(gauges.running())
      }
    })
    new Gauge({
      ...this.shared,
      name: 'paligemma_model_loaded',
      help: '1: the model is in memory',
      labelNames: ['model'] as const,
      collect() {
        for (const [model, loaded] of gauges.models()) this.set({ model }, loaded ? 1 : 0)
      }
    })
    this.addCacheGauges(gauges)
    new Gauge({
      ...this.shared,
      name: 'process_resident_memory_bytes',
      help: 'Resident memory, mapped weights included',
      collect() {
        this.set(process.memoryUsage.rss())
      }
    })
  }

  /** Of models that are loaded; others have no pages. */
  private addCacheGauges({ stats }: Gauges): void {
    const gauge = (name: string, help: string, value: (stats: ModelStats) => number): void => {
      new Gauge({
        ...this.shared,
        name,
        help,
        labelNames: ['model'] as const,
        collect() {
          this.reset()
          for (const [model, now] of stats()) this.set({ model }, value(now))
        }
      })
    }
    gauge('paligemma_kv_pages_used', 'Pages of the KV cache in use, kept prefixes included', (now) => now.kvPagesUsed)
    gauge('paligemma_kv_pages', 'The most pages of the KV cache that there may be', (now) => now.kvPages)
    gauge('paligemma_kv_page_tokens', 'Tokens of a page of the KV cache', (now) => now.kvPageTokens)
  }

  ended(path: string, status: number, ms: number, code: string | undefined): void {
    this.requests.inc({ path, status: String(status) })
    this.duration.observe({ path }, ms / 1000)
    if (code !== undefined) this.errors.inc({ code })
  }

  generated(model: string, { usage, timings }: Timed): void {
    this.tokens.inc({ model, kind: 'image' }, usage.imageTokens)
    this.tokens.inc({ model, kind: 'prompt' }, usage.promptTokens)
    this.tokens.inc({ model, kind: 'completion' }, usage.completionTokens)
    this.firstToken.observe({ model }, timings.firstTokenMs / 1000)
    this.queued.observe({ model }, timings.queueMs / 1000)
    if (timings.decodeTokensPerSecond > 0) this.rate.observe({ model }, timings.decodeTokensPerSecond)
  }

  get contentType(): string {
    return this.registry.contentType
  }

  async text(): Promise<string> {
    return await this.registry.metrics()
  }
}
