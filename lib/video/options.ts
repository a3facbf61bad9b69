/** Which frames of a video are wanted: the options and their rules. */
import type { PaliGemmaError } from '../base/errors'
import { invalid } from '../images/problems'
import { rule, wrongOption, type Rules } from '../base/validate'

/** Options of {@link videoFrames}. One of `count`, `fps` and `times` says which frames; default: `count` 16. */
export interface VideoFrameOptions {
  /** So many frames, at the middles of as many equal parts of the clip. A clip with fewer frames repeats the last. */
  count?: number | undefined
  /** So many frames a second, from `start` on. */
  fps?: number | undefined
  /** Seconds from the clip's beginning, rising. */
  times?: number[] | undefined
  /** Seconds; default 0. */
  start?: number | undefined
  /** Seconds; default: to the end. */
  end?: number | undefined
  /** No side of a frame is longer than this many pixels; default: as they are. The model's size is enough. */
  size?: number | undefined
  /** As in {@link LoadOptions}. */
  allowPrivateAddresses?: boolean | undefined
  /**
   * A file may be a playlist, which leads to other files of this machine; default false, since a file may be somebody's
   * upload.
   */
  allowPlaylists?: boolean | undefined
  /** Ends the loop with its reason, and ffmpeg. */
  signal?: AbortSignal | undefined
}

const seconds = rule.number(0, 1e7)

export const frameRules: Rules<VideoFrameOptions> = {
  count: rule.integer(1, 65_536),
  fps: rule.above(0, 1000),
  times: rule.listOf('seconds', seconds.accepts, { least: 1, most: 4096 }),
  start: seconds,
  end: rule.above(0, 1e7),
  size: rule.integer(1, 16_384),
  allowPrivateAddresses: rule.flag,
  allowPlaylists: rule.flag,
  signal: rule.signal
}

export const defaultCount = 16

/** Refuses what does not go together. */
export function checkFrameOptions({ count, fps, times, start = 0, end = Infinity }: VideoFrameOptions): void {
  const given = Object.entries({ count, fps, times }).filter(([, value]) => value !== undefined)
  if (given.length > 1) {
    const [[name, value]] = given as [[string, unknown]]
    throw wrongOption(name, `nothing beside ${given[1]![0]}`, value)
  }
  if (start >= end) throw wrongOption('end', `number > start, which is ${start},`, end)
  if (!times) return
  if (times.some((time, i) => i > 0 && time <= times[i - 1]!)) throw wrongOption('times', 'rising seconds', times)
  if (times[0]! < start || times.at(-1)! >= end) throw wrongOption('times', 'seconds between start and end', times)
}

/** A promise of so many frames cannot be kept. */
export const noFrames = (name: string, { start = 0, end }: VideoFrameOptions): PaliGemmaError =>
  invalid(name, `it has no frames from ${start} s ${end === undefined ? 'on' : `to ${end} s`}`)
