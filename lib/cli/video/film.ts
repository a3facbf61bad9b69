/** `--annotate out.mp4`: drawn frames as a film, by the user's ffmpeg. */
import { extname } from 'node:path'
import { PassThrough } from 'node:stream'
import { PaliGemmaError } from '../../base/errors'
import { checkOutput, OutputFile } from '../../base/output-file'
import { untilAborted } from '../../base/signals'
import { Ffmpeg } from '../../video/ffmpeg'
import { usageError } from '../context'

const option = '--annotate'
const muxers: Record<string, string> = {
  '.mp4': 'mp4',
  '.mov': 'mov',
  '.mkv': 'matroska',
  '.webm': 'webm',
  '.gif': 'gif'
}
// most players want even sides and this layout of colours
const evenSides = 'scale=trunc(iw/2)*2:trunc(ih/2)*2,format=yuv420p'

export interface FilmOptions {
  path: string
  /** Frames a second. */
  rate: number
  sources: string[]
  signal: AbortSignal
}

/** Before the model is loaded. Throws usage errors, and what is wrong with the place. */
export async function checkFilm(path: string, sources: string[]): Promise<void> {
  if (!muxers[extname(path).toLowerCase()])
    throw usageError(`Expected a file with ${Object.keys(muxers).join(', ')} for ${option} but received ${path}`)
  await checkOutput(path, { option, sources })
}

export class Film {
  private readonly pictures = new PassThrough()
  private readonly ffmpeg: Ffmpeg

  private constructor(
    private readonly file: OutputFile,
    private readonly options: FilmOptions
  ) {
    const muxer = muxers[extname(options.path).toLowerCase()]!
    const filters = muxer === 'gif' ? [] : ['-vf', evenSides]
    const input = ['-f', 'image2pipe', '-c:v', 'mjpeg', '-framerate', String(options.rate), '-i', 'pipe:0']
    this.ffmpeg = new Ffmpeg(
      { name: options.path, input: 'pipe:0', bytes: this.pictures, protocols: 'file,pipe' },
      [...input, ...filters, '-y', '-f', muxer, `file:${file.part}`],
      () => false,
      options.signal
    )
    this.ffmpeg.child.stdout!.resume()
  }

  static async begin(options: FilmOptions): Promise<Film> {
    return new Film(await OutputFile.create(options.path, { option, sources: options.sources }), options)
  }

  /** Waits while ffmpeg is behind. */
  async add(jpeg: Buffer): Promise<void> {
    const taken = new Promise<void>((resolve) => {
      if (this.pictures.write(jpeg)) resolve()
      else this.pictures.once('drain', resolve)
    })
    const died = this.ffmpeg.ended.then(() => {
      throw this.failure()
    })
    await untilAborted(Promise.race([taken, died]), this.options.signal)
  }

  /** The film is there. */
  async finish(): Promise<void> {
    this.pictures.end()
    if ((await untilAborted(this.ffmpeg.ended, this.options.signal)) !== 0) throw this.failure()
    await this.file.commit()
  }

  async discard(): Promise<void> {
    this.ffmpeg.end()
    await this.file.discard()
  }

  private failure(): PaliGemmaError {
    const refusal = this.ffmpeg.refusal(this.options.path)
    if (refusal) return refusal
    const words = this.ffmpeg.words() ?? 'ffmpeg ended'
    return new PaliGemmaError('ERR_WRITE_FAILED', `${this.options.path} cannot be written: ${words}`)
  }
}
