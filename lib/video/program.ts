/** The user's ffmpeg: where it is, and what it can. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { PaliGemmaError } from '../base/errors'
import { expandPath } from '../base/expand-path'
import { starved } from '../images/problems'

/** PALIGEMMA_FFMPEG, else the first on PATH. */
export const program = (): string => expandPath(process.env['PALIGEMMA_FFMPEG'] ?? '', 'PALIGEMMA_FFMPEG') || 'ffmpeg'

const answers = new Map<string, Promise<string>>()

/** What it says to a question, asked once. */
async function told(question: string): Promise<string> {
  const command = program()
  const key = `${question} ${command}`
  let answer = answers.get(key)
  if (!answer) {
    const asked = promisify(execFile)(command, [question, '-hide_banner'], { windowsHide: true, maxBuffer: 1 << 24 })
    answer = asked.then(({ stdout }) => stdout)
    answers.set(key, answer)
    answer.catch(() => answers.delete(key)) // it may be installed meanwhile
  }
  return await answer.catch((cause: unknown) => {
    throw missing(command, cause)
  })
}

/** These open what a file names: playlists, scripts, descriptions of streams, subtitles beside it. */
const leading = new Set([
  ...['hls', 'applehttp', 'dash', 'webm_dash_manifest', 'concat', 'imf', 'sdp', 'rtsp', 'sap', 'vobsub'],
  ...['avisynth', 'vapoursynth']
])
/** Reads pictures, and takes a percent sign in the name for a series of files. */
const series = 'image2'

/** What it may take the file at a path for, in its own words: all that it knows, but what would lead it to others. */
export async function plainFormats(path: string): Promise<string> {
  const known = [...(await told('-demuxers')).matchAll(/^ D\s+(\S+)\s/gm)].map(([, names]) => names!)
  const isPlain = (name: string): boolean => !leading.has(name) && !(name === series && path.includes('%'))
  return known.filter((names) => names.split(',').every(isPlain)).join(',')
}

/** Of frames that pass as they are; the option was renamed in ffmpeg 5.1 and the old name removed later. */
export async function passFrames(): Promise<string[]> {
  const text = await told('-version')
  const [, major = '9', minor = '0'] = /^ffmpeg version n?(\d+)\.(\d+)/.exec(text) ?? []
  return Number(major) + Number(minor) / 10 >= 5.1 ? ['-fps_mode', 'passthrough'] : ['-vsync', 'passthrough']
}

// What the system and libraries say where threads or processes are limited: that is no fault of the video.
export const refused = /resource temporarily unavailable|pthread_create|\bEAGAIN\b|\bENOMEM\b/i

export function missing(command: string, cause: unknown): PaliGemmaError {
  if (refused.test(String(cause))) return starved(command, 'it a process or threads', cause)
  const install = {
    darwin: '"brew install ffmpeg"',
    win32: '"winget install ffmpeg"',
    linux: '"apt-get install ffmpeg", "dnf install ffmpeg-free" or "apk add ffmpeg"'
  } as Record<string, string>
  const reason = (cause as NodeJS.ErrnoException).code === 'ENOENT' ? 'is not installed' : `does not start (${cause})`
  return new PaliGemmaError(
    'ERR_DEPENDENCY_MISSING',
    `Videos are read by ffmpeg, and ${command} ${reason}. Install it ` +
      `(${install[process.platform] ?? 'see ffmpeg.org'}), or name it with the variable PALIGEMMA_FFMPEG`,
    { cause }
  )
}
