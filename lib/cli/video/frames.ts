/** `paligemma video --detect`: objects of single frames, as rows, as tracks, as a film. */
import type { Detection, PaliGemma, RawPixels } from '../../index'
import { pick, samplingOptions } from '../args'
import type { Journal } from '../batch/journal'
import type { Row } from '../batch/rows'
import { type Context, counted, printable, printJson, printLine } from '../context'
import { describeDetection } from '../tasks/detect'
import { progress } from '../progress'
import { Film } from './film'

export interface FrameRun {
  file: string
  labels: string[]
  /** Seconds from frame to frame. */
  every: number
  options: Record<string, unknown>
  /** Rows that are already there are not made again. */
  journal: Journal | undefined
  json: boolean
}

interface FrameRow extends Row {
  time: number
  detections: Detection[]
}

export async function detectInFrames(model: PaliGemma, run: FrameRun, context: Context): Promise<void> {
  const { recommendedMinScore, Tracker, videoFrames } = await import('../../index.js')
  const { noFrames } = await import('../../video/options.js')
  const { file, labels, every, options, journal } = run
  const { signal } = context
  const call = {
    minScore: (options['minScore'] as number | undefined) ?? recommendedMinScore(labels),
    ...samplingOptions(options, signal)
  }
  const earlier = await rowsOf(journal)
  const tracker = options['tracks'] === true ? new Tracker({ keepSeconds: Math.max(1, 3 * every) }) : undefined
  const speed = new Speed(file, context)
  let film: Film | undefined
  try {
    for await (const { time, image } of videoFrames(file, {
      fps: 1 / every,
      ...pick(options, ['start', 'end', 'allowPlaylists']),
      signal
    })) {
      const name = frameName(file, time)
      const before = earlier.get(name)
      const detections = before?.detections ?? [...(await model.detect(image, labels, call))]
      const tracks = tracker?.update(detections, time)
      const seen = (tracks?.tracked ?? detections) as Seen[]
      if (!before) {
        speed.pause()
        const row = { image: name, time, detections, ...(tracks && { tracks }) } as FrameRow
        await journal?.append(row)
        if (!journal || !run.json) print(run, row, seen, context)
      }
      if (options['annotate'] !== undefined) {
        film ??= await Film.begin({ path: options['annotate'] as string, rate: 1 / every, sources: [file], signal })
        await film.add(await drawn(image, seen))
      }
      await speed.at(time)
    }
    if (speed.frames === 0) throw noFrames(file, pick(options, ['start', 'end']))
    await film?.finish()
  } catch (error) {
    await film?.discard()
    throw error
  } finally {
    speed.end()
  }
}

/** A media fragment, as of the W3C: the row of this moment. */
export const frameName = (file: string, seconds: number): string => `${file}#t=${Number(seconds.toFixed(3))}`

async function rowsOf(journal: Journal | undefined): Promise<Map<string, FrameRow>> {
  const rows = new Map<string, FrameRow>()
  if (journal) for await (const { row } of journal.rows()) rows.set(row.image, row as FrameRow)
  return rows
}

type Seen = Detection & { id?: number }

function print({ json }: FrameRun, { time, detections, ...row }: FrameRow, seen: Seen[], context: Context): void {
  if (json) return printJson(context, { time, detections, ...('tracks' in row && { tracks: row.tracks }) })
  for (const one of seen)
    printLine(
      context,
      `${time.toFixed(2)} s  ${one.id === undefined ? '' : `#${one.id} `}${printable(describeDetection(one))}`
    )
}

/** With tracks every one has its own colour. */
async function drawn(image: RawPixels, seen: Seen[]): Promise<Buffer> {
  const { drawDetections } = await import('../../index.js')
  const objects = seen.map(({ id, label, ...one }) => ({ ...one, label: id === undefined ? label : `#${id} ${label}` }))
  return Buffer.from(await drawDetections(image, objects, { format: 'jpeg' }))
}

/** How far it is, and how fast against the clock. */
class Speed {
  private readonly bar
  private readonly began = performance.now()
  frames = 0
  private first: number | undefined
  private last = 0
  private duration: Promise<number | undefined> | undefined

  constructor(
    private readonly file: string,
    private readonly context: Context
  ) {
    this.bar = progress(context, 'video')
  }

  pause(): void {
    this.bar.done()
  }

  async at(seconds: number): Promise<void> {
    this.frames++
    this.first ??= seconds
    this.last = seconds
    const all = await (this.duration ??= durationOf(this.file, this.context.signal))
    this.bar.update(all === undefined ? undefined : Math.min(seconds / all, 1), this.note())
  }

  private note(): string {
    const elapsed = (performance.now() - this.began) / 1000
    return `${Number(((this.last - (this.first ?? 0)) / Math.max(elapsed, 0.001)).toPrecision(2))} x real time`
  }

  end(): void {
    this.bar.done()
    if (this.frames > 0) this.context.stderr.write(`${counted(this.frames, 'frames')}, ${this.note()}\n`)
  }
}

/** undefined: nobody knows, or it needs no ffmpeg. */
async function durationOf(file: string, signal: AbortSignal): Promise<number | undefined> {
  const [{ probeDuration }, { openVideo }] = await Promise.all([
    import('../../video/ffmpeg.js'),
    import('../../video/source.js')
  ])
  return await openVideo(file)
    .then(async (video) => await probeDuration(video, signal))
    .catch(() => undefined)
}
