/** The page of `watch --page`: what is seen, to every browser of this machine that looks. */
import { Hono } from './vendored'
import { anySignal, ownController, untilAborted } from '../base/signals'
import { decodeImage } from '../images/decode'
import type { ImageEmbedding, ImageInput } from '../images/image-input'
import { loadSharp } from '../images/sharp'
import { Keys } from './guards'
import { listen, type Listener } from './listen'
import { pageHandler } from './page'
import { dataEvent, namedEvent } from './sse'

/** A moment, as the page shows it. */
export interface LiveView {
  /** Where the pictures come from. */
  source: string
  image: Exclude<ImageInput, ImageEmbedding>
  /** Milliseconds since 1970. */
  time: number
  objects: object[]
  text: string
  /** "3.1 a second, ..." */
  figures: string
  /** Tracks that are new, and those that are gone. */
  entered: object[]
  left: object[]
}

/** The page shows a picture no larger: it goes to the browser again and again. */
const shownPixels = 1280

/** A moment is encoded once, when the first browser asks for it. */
class Shot {
  private text: Promise<string> | undefined

  constructor(
    readonly number: number,
    private readonly view: LiveView
  ) {}

  encoded(): Promise<string> {
    return (this.text ??= eventOf(this.view))
  }
}

async function eventOf({ image, ...told }: LiveView): Promise<string> {
  const { data, width, height } = await decodeImage(image)
  const raw = { width, height, channels: 3 as const }
  const jpeg = await (await loadSharp())(data, { raw, limitInputPixels: false })
    .resize(shownPixels, shownPixels, { fit: 'inside', withoutEnlargement: true })
    .jpeg({ quality: 80 })
    .toBuffer()
  return dataEvent({ ...told, width, height, picture: `data:image/jpeg;base64,${jpeg.toString('base64')}` })
}

export class LivePage {
  private readonly closing = ownController()
  private shot: Shot | undefined
  private wakes = new Set<() => void>()
  private listener: Listener | undefined
  /** "http://127.0.0.1:8080" */
  url = ''

  /** Listens on loopback, for this machine alone. @throws PaliGemmaError ERR_INVALID_OPTION where the port is taken */
  static async open(options: { port?: number | undefined; signal?: AbortSignal | undefined }): Promise<LivePage> {
    const page = new LivePage()
    const app = new Hono()
    pageHandler(app, '', 'live.html')
    app.get('/live', (context) => page.stream(context.req.raw.signal))
    page.listener = await listen(async (request) => await app.fetch(request), options, new Keys([]))
    page.url = `http://${page.listener.host}:${page.listener.port}`
    return page
  }

  /** What came before and nobody has taken yet is forgotten; nothing is encoded while nobody looks. */
  show(view: LiveView): void {
    this.shot = new Shot((this.shot?.number ?? 0) + 1, view)
    for (const wake of this.wakes) wake()
    this.wakes.clear()
  }

  /** Tells the browsers that it is over. */
  async close(): Promise<void> {
    this.closing.abort()
    await Promise.race([this.listener?.stop(), new Promise((resolve) => setTimeout(resolve, 100))])
    this.listener?.destroy()
  }

  private stream(leaving: AbortSignal): Response {
    const left = ownController()
    const { signal, release } = anySignal([leaving, left.signal, this.closing.signal])
    const encoder = new TextEncoder()
    let last = 0
    const body = new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          try {
            const shot = await this.after(last, signal!)
            last = shot.number
            controller.enqueue(encoder.encode(await shot.encoded()))
          } catch {
            release()
            if (this.closing.signal.aborted) controller.enqueue(encoder.encode(namedEvent('end', {})))
            controller.close()
          }
        },
        cancel: () => left.abort()
      },
      { highWaterMark: 0 }
    )
    const headers = { 'content-type': 'text/event-stream; charset=utf-8', 'cache-control': 'no-cache' }
    return new Response(body, { headers })
  }

  /** The latest, once there is one after that number. */
  private async after(number: number, signal: AbortSignal): Promise<Shot> {
    while (!this.shot || this.shot.number <= number) {
      await untilAborted(new Promise<void>((resolve) => void this.wakes.add(resolve)), signal)
    }
    return this.shot
  }
}
