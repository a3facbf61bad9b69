/** A running ffmpeg: how it is started and ended, what it says. */
import { spawn, type ChildProcess } from 'node:child_process'
import { PaliGemmaError } from '../base/errors'
import { follow } from '../base/signals'
import { invalid, starved } from '../images/problems'
import { missing, program, refused } from './program'
import { inside, type OpenedVideo } from './source'

const keptLines = 40

/** A running ffmpeg. `onLine` gets what it says line by line; a line that it takes for itself is no message. */
export class Ffmpeg {
  readonly child: ChildProcess
  /** Its exit code; null: it was ended. Rejects where it does not start. */
  readonly ended: Promise<number | null>
  /** What made the source of its bytes fail: what it read until then is not all. */
  sourceError: Error | undefined
  private readonly said: string[] = []
  private killedBy: NodeJS.Signals | null = null
  private readonly release: () => void

  constructor(
    private readonly video: OpenedVideo,
    args: string[],
    onLine: (line: string) => boolean,
    signal?: AbortSignal
  ) {
    const { bytes, protocols, formats } = video
    const all = ['-hide_banner', '-nostats', '-loglevel', 'info', '-protocol_whitelist', protocols]
    if (formats !== undefined) all.push('-format_whitelist', formats)
    all.push(...args)
    if (!bytes) all.unshift('-nostdin')
    this.child = spawn(program(), all, {
      stdio: [bytes ? 'pipe' : 'ignore', 'pipe', 'pipe'],
      windowsHide: true,
      env: { ...process.env, ...video.pass?.env }
    })
    this.ended = new Promise((resolve, reject) => {
      this.child.once('error', (error) => reject(missing(program(), error)))
      this.child.once('close', (code, signal) => {
        this.killedBy = signal
        resolve(code)
      })
    })
    this.ended.catch(() => {})
    this.listen(onLine)
    if (bytes) this.feed(bytes)
    this.release = signal ? follow(signal, () => this.end()) : () => {}
  }

  private listen(onLine: (line: string) => boolean): void {
    let rest = ''
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      const lines = (rest + text).split(/\r?\n|\r/)
      rest = lines.pop()!.slice(-65_536)
      for (const line of lines) {
        if (onLine(line) || line.trim() === '') continue
        this.said.push(line.trim())
        if (this.said.length > keptLines) this.said.shift()
      }
    })
  }

  private feed(bytes: NonNullable<OpenedVideo['bytes']>): void {
    const { stdin } = this.child
    stdin!.on('error', () => bytes.destroy()) // it has what it needs
    bytes.once('error', (error) => {
      this.sourceError = error
      stdin!.end()
    })
    bytes.pipe(stdin!)
  }

  end(): void {
    this.release()
    this.child.kill('SIGKILL')
    this.child.stdout?.destroy()
    this.video.bytes?.destroy()
  }

  /** Of what it said the line that tells most. */
  words(): string | undefined {
    const telling = this.said.filter((line) =>
      /error|invalid|no such|not found|could not|cannot|unable|unknown|denied|matches no streams|moov|refused/i.test(
        line
      )
    )
    return (telling.length > 0 ? telling : this.said).at(-1)?.replace(/^\[[^\]]*\]\s*/, '')
  }

  /** Where the system refused it threads. */
  refusal(name: string): PaliGemmaError | undefined {
    const line = this.said.find((one) => refused.test(one))
    return line === undefined ? undefined : starved(name, 'ffmpeg a thread', new Error(line))
  }

  /** What is wrong, in its own words. */
  failure(otherwise: string): PaliGemmaError {
    const { name, bytes } = this.video
    if (this.sourceError instanceof PaliGemmaError) return this.sourceError
    if (this.sourceError) return invalid(name, `cannot be read: ${this.sourceError.message}`, this.sourceError)
    const refusal = this.refusal(name)
    if (refusal) return refusal
    const address = this.video.pass?.refused()
    if (address !== undefined) return inside(name, address)
    if (this.said.some((line) => /format not on whitelist/i.test(line))) return leads(name)
    if (this.killedBy) return starved(name, 'ffmpeg memory', new Error(`it was ended by ${this.killedBy}`))
    const words = this.words()
    if (words !== undefined && /matches no streams/.test(words)) return invalid(name, `it has no pictures (${words})`)
    const moov = this.said.some((line) => /moov atom not found/.test(line)) && bytes
    const hint = moov ? '; its index is at the end, so pass it as a file, or write it with -movflags +faststart' : ''
    return invalid(name, words === undefined ? otherwise : `cannot be read: ${words}${hint}`)
  }
}

const leads = (name: string): PaliGemmaError =>
  invalid(
    name,
    'it is no video but a list of other files, or has a name with % that stands for several, all of which ffmpeg ' +
      'would open; allowPlaylists (--allow-playlists) lets it where no stranger wrote it'
  )

const unknown = undefined
const durationLine = /^\s*Duration: (\d+):(\d+):([\d.]+)(?:, start: (-?[\d.]+))?/

/** Seconds, as the container says; undefined: it does not. */
export async function probeDuration(video: OpenedVideo, signal?: AbortSignal): Promise<number | undefined> {
  if (video.bytes) return unknown
  let duration: number | undefined
  // these say when the last frame ends, others how long it is from the first one's time
  let untilEnd = false
  const ffmpeg = new Ffmpeg(
    video,
    ['-i', video.input],
    (line) => {
      untilEnd ||= /^Input #0, (?:matroska|mov)\b/.test(line)
      const [, hours, minutes, seconds, start = 0] = durationLine.exec(line) ?? []
      if (hours !== undefined) {
        duration = Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds)
        if (untilEnd) duration -= Math.max(Number(start), 0)
      }
      return hours !== undefined
    },
    signal
  )
  ffmpeg.child.stdout!.resume()
  try {
    await ffmpeg.ended // with an error: no output was asked for
  } finally {
    ffmpeg.end()
  }
  signal?.throwIfAborted()
  return duration
}
