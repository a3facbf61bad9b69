/** A native binding without arithmetic: it answers requests with scripted texts, through the same events. */
import type {
  NativeBinding,
  NativeEvent,
  NativeLoadOptions,
  NativeModel,
  NativeModelInfo,
  NativeRequest
} from '../../lib/engine/native'

export const fakeInfo: NativeModelInfo = {
  architecture: 'gemma2',
  name: 'fake',
  quantization: 'F32',
  device: 'cpu',
  isa: 'scalar',
  threads: 1,
  imageSize: 8,
  imageTokens: 4,
  textLayers: 26,
  textHidden: 3,
  visionLayers: 1,
  visionHidden: 2,
  vocab: 10,
  contextSize: 100,
  parameters: 5,
  bytes: 20,
  hasVision: true,
  hasMaskDecoder: true,
  hasRetrieval: false,
  retrievalDims: 0,
  retrievalFlavour: '',
  adapters: [],
  resizeFilter: 'bicubic'
}

/**
 * A token per entry; a number waits so many milliseconds first, a function for what it promises, and an Error ends the
 * job with it.
 */
export type Script = (string | number | (() => Promise<unknown>) | (Error & { code?: string }))[]

export class FakeNative {
  requests: NativeRequest[] = []
  loads: NativeLoadOptions[] = []
  cancelled: number[] = []
  disposals = 0
  resizes = 0
  /** Submitted and not ended. */
  running = 0
  mostRunning = 0
  loadError: { code: string; message: string } | undefined
  loadDelayMs = 0
  info = fakeInfo

  constructor(readonly script: (request: NativeRequest) => Script = () => ['a', 'b', 'c']) {}

  readonly binding = (): NativeBinding => {
    const fake = this // eslint-disable-line @typescript-eslint/no-this-alias -- the class below has its own
    class Model implements NativeModel {
      private jobs = 0
      private readonly ends = new Map<number, (code: string) => void>()
      private disposed = false

      constructor(
        options: NativeLoadOptions,
        private readonly onEvents: (events: NativeEvent[]) => void
      ) {
        fake.loads.push(options)
        setTimeout(() => {
          this.onEvents([
            fake.loadError ? { kind: 'error', job: 0, ...fake.loadError } : { kind: 'ready', job: 0, info: fake.info }
          ])
        }, fake.loadDelayMs)
      }

      submit(request: NativeRequest): number {
        if (this.disposed) throw Object.assign(new Error('gone'), { code: 'ERR_DISPOSED' })
        fake.requests.push(request)
        const job = ++this.jobs
        fake.mostRunning = Math.max(fake.mostRunning, ++fake.running)
        void this.play(job, request)
        return job
      }

      private async play(job: number, request: NativeRequest): Promise<void> {
        let over = false
        const end = (event: NativeEvent): void => {
          if (over) return
          over = true
          fake.running--
          this.ends.delete(job)
          this.onEvents([event])
        }
        this.ends.set(job, (code) => end({ kind: 'error', job, code, message: code }))
        await new Promise(setImmediate)
        let tokens = 0
        const spoken: { id: number; tokenText: string; logProb: number }[] = []
        for (const step of fake.script(request)) {
          if (over) return
          if (typeof step === 'number') await new Promise((resolve) => setTimeout(resolve, step))
          else if (typeof step === 'function') await step()
          else if (step instanceof Error)
            return end({ kind: 'error', job, code: step.code ?? 'odd', message: step.message })
          else {
            const token = { id: tokens++, tokenText: step, logProb: -0.5 }
            spoken.push(token)
            if (request.kind === 'generate') this.onEvents([{ kind: 'token', job, text: step, token }])
          }
        }
        end({
          kind: 'end',
          job,
          text: '',
          finishReason: 'stop',
          usage: { imageTokens: 4 * request.images.length, promptTokens: 3, completionTokens: tokens },
          timings: { queueMs: 1, visionMs: 2, prefillMs: 3, firstTokenMs: 4, decodeMs: 5 },
          ...(request.kind === 'score' && { scored: spoken }),
          ...(request.kind === 'encodeImage' && { embedding: new Float32Array(12).fill(0.5) })
        })
      }

      cancel(job: number): void {
        fake.cancelled.push(job)
        setImmediate(() => this.ends.get(job)?.('ERR_ABORTED'))
      }

      dispose(): void {
        if (this.disposed) return
        this.disposed = true
        fake.disposals++
        setImmediate(() => {
          for (const end of [...this.ends.values()]) end('ERR_DISPOSED')
          this.onEvents([{ kind: 'stopped', job: 0 }])
        })
      }

      tokenize(text: string, control: boolean): number[] {
        return [...text].map((char) => char.charCodeAt(0) + (control ? 1000 : 0))
      }
      detokenize(ids: number[]): string {
        return String.fromCharCode(...ids)
      }
      async decodeMask(codes: number[]): Promise<Float32Array<ArrayBuffer>> {
        return new Float32Array(4096).fill(codes[0]!)
      }
      kvUse(): { used: number; most: number; pageTokens: number } {
        return { used: fake.running, most: 8, pageTokens: 64 }
      }
    }
    return {
      Model,
      resize: async (data: Uint8Array, width: number, height: number, size: number, _filter: string, fit: string) => {
        this.resizes++
        const scale = fit === 'pad' ? size / Math.max(width, height) : 0
        return {
          data: new Uint8Array(size * size * 3).fill(data[0]!),
          transform: scale
            ? {
                scaleX: scale,
                scaleY: scale,
                offsetX: (size - width * scale) / 2,
                offsetY: (size - height * scale) / 2
              }
            : { scaleX: size / width, scaleY: size / height, offsetX: 0, offsetY: 0 }
        }
      },
      pasteMask: async (
        mask: Float32Array,
        box: { x0: number; y0: number; x1: number; y1: number },
        width: number,
        height: number
      ) => {
        const data = new Uint8Array(width * height)
        for (let y = Math.max(box.y0, 0); y < Math.min(box.y1, height); y++)
          data.fill(mask[0]!, y * width + Math.max(box.x0, 0), y * width + Math.min(box.x1, width))
        return data
      }
    } as unknown as NativeBinding
  }
}

export const picture = { data: new Uint8Array(20 * 10 * 3).fill(200), width: 20, height: 10, channels: 3 as const }
