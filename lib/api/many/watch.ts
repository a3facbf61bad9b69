/** `watch`: a task on what a camera sees, the latest picture each time. */
import { setTimeout as sleep } from 'node:timers/promises'
import { publicLoop, type Taken } from '../../base/call'
import { workingFolder } from '../../base/paths'
import { anySignal, ownController, untilAborted } from '../../base/signals'
import { check, readFields, readOptions, rule, wrongOption, type Rules } from '../../base/validate'
import { decodeImage } from '../../images/decode'
import { isEmbedding, isRaw, type ImageEmbedding, type ImageInput, type RawPixels } from '../../images/image-input'
import { Tracker, trackerRules, type Trackable, type TrackerOptions, type TrackUpdate } from '../../output/tracker'
import { changedShare, overview } from '../../video/change'
import { Latest } from '../../video/latest'
import { pump, takeLiveSource, type LiveFrame, type LiveSource } from '../../video/live'
import { asError } from './batch'
import { batchTaskRules, callTask, taskRule, type BatchTask, type BatchTasks, type TaskCalls } from './batch-tasks'
import { definedOnly, type ModelHost } from '../request/host'

/** Options of `watch`: of the loop, and of the task. */
export type WatchOptions<T extends BatchTask> = {
  /** The call that each picture is given to. */
  task: T
  /** Seconds from one start to the next at least; default 0: as fast as the model is. */
  minInterval?: number | undefined
  /**
   * Look only at pictures that differ from the last one looked at: `true`, or the share of the picture that must
   * differ, 0 to 1 (true: 0.01). See docs/video.md.
   */
  onlyWhenChanged?: boolean | number | undefined
  /** Ids that stay from picture to picture; of `detect` and `segment`. `true`, or options of {@link Tracker}. */
  tracks?: boolean | TrackerOptions | undefined
  /** No side of a picture is longer than so many pixels; default: as they come. */
  size?: number | undefined
  /** After so many seconds without a picture a camera or stream is opened anew; default 10. */
  stallSeconds?: number | undefined
  /** As in {@link VideoFrameOptions}. */
  allowPlaylists?: boolean | undefined
  /** Called before a camera or stream that failed, ended or stalled is opened again. */
  onReconnect?: ((error: Error, attempt: number) => void) | undefined
  /** Ends the loop with its reason. */
  signal?: AbortSignal | undefined
} & Omit<BatchTasks[T]['options'], 'signal' | 'image' | 'images' | 'onToken' | 'onTile' | 'onObject'>

/** What was seen at a moment: `result` as the call gives it, or the `error` of a picture that cannot be looked at. */
export type Seen<T extends BatchTask> = {
  /** The picture; another call with it costs no second look of the vision tower. */
  image: ImageInput
  /** Milliseconds since 1970, when it came. */
  time: number
  /** How old it is now, in milliseconds. */
  ageMs: number
  /** Results a second, of late. */
  fps: number
  /** Pictures since the beginning that came too fast. */
  dropped: number
  /** Pictures since the beginning that showed nothing new, with `onlyWhenChanged`. */
  unchanged: number
  /** With the option `tracks`, unless there is an error. */
  tracks?: TrackUpdate<Trackable>
} & ({ result: BatchTasks[T]['result']; error?: undefined } | { result?: undefined; error: Error })

interface LoopOptions {
  task: BatchTask
  minInterval?: number
  onlyWhenChanged?: boolean | number
  tracks?: boolean | TrackerOptions
  size?: number
  stallSeconds?: number
  allowPlaylists?: boolean
  onReconnect?: (error: Error, attempt: number) => void
  signal?: AbortSignal
}

const tracksRule = {
  expected: 'boolean or options of Tracker',
  take: (v: unknown) => (typeof v === 'object' && v !== null ? readOptions('tracks', v, trackerRules) : v),
  accepts: (v: unknown) => typeof v === 'boolean' || (typeof v === 'object' && v !== null)
}

/** Options of the loop; those of the task stand beside them. */
export const watchLoopRules: Rules<LoopOptions> = {
  task: taskRule,
  minInterval: rule.number(0, 86_400),
  onlyWhenChanged: {
    expected: 'boolean or number from 0 to 1',
    accepts: (v) => typeof v === 'boolean' || rule.number(0, 1).accepts(v)
  },
  tracks: tracksRule,
  size: rule.integer(1, 16_384),
  stallSeconds: rule.above(0, 86_400),
  allowPlaylists: rule.flag,
  onReconnect: rule.callback,
  signal: rule.signal
}

type Given = LoopOptions & Record<string, unknown>

export function watch(
  model: TaskCalls,
  host: ModelHost,
  source: unknown,
  given: unknown
): AsyncGenerator<Seen<BatchTask>, void, undefined> {
  return publicLoop(
    () => {
      const { task } = readFields('the options of watch', given, ['task']) as { task: BatchTask }
      check('task', task, taskRule)
      const { concurrency: _, ordered: __, ...taskRules } = batchTaskRules[task] as Record<string, never>
      const rules = { ...taskRules, ...watchLoopRules } as object
      const options = readOptions('watch', given, rules, ['task' as never]) as unknown as Given
      if (options.tracks && task !== 'detect' && task !== 'segment')
        throw wrongOption('tracks', 'nothing with a task that finds no objects', options.tracks)
      return { ...options, source: takeLiveSource(source), folder: workingFolder() }
    },
    ({ source, folder, ...options }) => look(model, host, source as LiveSource, folder as string, options)
  )
}

const defaultStallSeconds = 10

async function* look(
  model: TaskCalls,
  host: ModelHost,
  source: LiveSource,
  folder: string,
  options: Taken<Given>
): AsyncGenerator<Seen<BatchTask>, void, undefined> {
  host.throwIfDisposed()
  const { task, minInterval = 0, onlyWhenChanged = false, tracks, size, onReconnect, ...others } = options
  const { stallSeconds = defaultStallSeconds, allowPlaylists, signal: outer, ...shared } = others
  const stop = ownController()
  const { signal, release } = anySignal([outer, stop.signal])
  const latest = new Latest<LiveFrame>()
  const pumped = pump(source, latest, {
    size,
    stallSeconds,
    allowPlaylists,
    minInterval,
    onReconnect,
    folder,
    signal: signal!
  })
  const call = callTask[task] as (model: TaskCalls, request: object) => Promise<unknown>
  const changes = onlyWhenChanged === false ? undefined : new Changes(onlyWhenChanged)
  const tracker = tracks ? new Tracker(tracks === true ? {} : tracks) : undefined
  const pace = new Pace()
  const clock = new Clock()
  let unchanged = 0
  try {
    for (let frame = await latest.next(signal!); frame; frame = await latest.next(signal!)) {
      const started = performance.now()
      const { image, time } = await readable(frame, changes !== undefined, signal!)
      if (changes && !changes.isNew(image)) unchanged++
      else {
        const outcome = await attempt(async () => await call(model, { ...definedOnly(shared), image, signal }), signal!)
        if ('result' in outcome) changes?.lookedAt()
        yield {
          image,
          time,
          ageMs: Date.now() - time,
          fps: pace.tick(),
          dropped: latest.dropped,
          unchanged,
          ...(tracker &&
            'result' in outcome && { tracks: tracker.update(outcome.result as Trackable[], clock.at(time)) }),
          ...outcome
        } as Seen<BatchTask>
      }
      const rest = minInterval * 1000 - (performance.now() - started)
      if (rest > 0) await untilAborted(sleep(rest), signal)
    }
  } finally {
    stop.abort()
    release()
    await Promise.race([pumped, sleep(100)]) // a source that gives nothing may never notice
  }
}

/** The picture as pixels where they are compared: it is decoded once. */
async function readable(frame: LiveFrame, asPixels: boolean, signal: AbortSignal): Promise<LiveFrame> {
  const { image } = frame
  if (!asPixels) return frame
  try {
    if (isRaw(image) || isEmbedding(image)) return frame
    const { data, width, height } = await decodeImage(image as Exclude<ImageInput, ImageEmbedding>, { signal })
    return { ...frame, image: { data, width, height, channels: 3 } }
  } catch (error) {
    if (signal.aborted) throw error
    return frame // the task says what is wrong
  }
}

/** One picture that cannot be read is its own failure; the loop goes on. */
async function attempt(
  work: () => Promise<unknown>,
  signal: AbortSignal
): Promise<{ result: unknown } | { error: Error }> {
  try {
    return { result: await work() }
  } catch (error) {
    signal.throwIfAborted()
    const code = (error as { code?: unknown }).code
    if (code !== 'ERR_IMAGE_INVALID' && code !== 'ERR_IMAGE_TOO_LARGE' && code !== 'ERR_BUSY') throw error
    return { error: asError(error) }
  }
}

const defaultChange = 0.01

/** Compares with the last picture that was looked at, not with the last that came: slow changes add up. */
class Changes {
  private readonly least: number
  private seen: Float32Array | undefined
  private now: Float32Array | undefined

  constructor(share: boolean | number) {
    this.least = share === true ? defaultChange : Number(share)
  }

  isNew(image: ImageInput): boolean {
    this.now = isRgb(image) ? overview(image) : undefined
    return !this.now || !this.seen || changedShare(this.seen, this.now) > this.least
  }

  lookedAt(): void {
    this.seen = this.now
  }
}

function isRgb(image: ImageInput): image is RawPixels {
  try {
    return isRaw(image) && image.data.length === image.width * image.height * 3
  } catch {
    return false // the task says what is wrong with it
  }
}

/** Seconds that always rise: two pictures may come in one millisecond, and clocks are set back. */
class Clock {
  private last = -Infinity

  at(timeMs: number): number {
    this.last = Math.max(timeMs / 1000, this.last + 1e-4)
    return this.last
  }
}

const paceShare = 0.2

/** Results a second, the latest counting most. */
class Pace {
  private last: number | undefined
  private interval: number | undefined

  tick(): number {
    const now = performance.now()
    if (this.last !== undefined) {
      const passed = now - this.last
      this.interval = this.interval === undefined ? passed : (1 - paceShare) * this.interval + paceShare * passed
    }
    this.last = now
    return this.interval === undefined ? 0 : 1000 / Math.max(this.interval, 0.001)
  }
}
