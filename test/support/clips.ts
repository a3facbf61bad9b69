/**
 * Clips whose every frame is known, made by ffmpeg: frame i is grey of 4 (i + 1) with a white corner at the top left.
 */
import { execFileSync } from 'node:child_process'

export const hasFfmpeg = ((): boolean => {
  try {
    execFileSync('ffmpeg', ['-version'], { stdio: 'ignore' })
    return true
  } catch {
    return false
  }
})()

export const [clipWidth, clipHeight] = [96, 64]

function frame(index: number): Buffer {
  const pixels = Buffer.alloc(clipWidth * clipHeight * 3, 4 * (index + 1))
  for (let y = 0; y < 16; y++) pixels.fill(255, y * clipWidth * 3, y * clipWidth * 3 + 16 * 3)
  return pixels
}

/** `frames` at `rate` a second, written with ffmpeg's `output` arguments; `before` go in front of the input. */
export function makeClip(path: string, frames: number, rate: number, output: string[], filters: string[] = []): void {
  const input = Buffer.concat(Array.from({ length: frames }, (_, i) => frame(i)))
  const size = `${clipWidth}x${clipHeight}`
  const raw = ['-f', 'rawvideo', '-pix_fmt', 'rgb24', '-s', size, '-r', String(rate), '-i', 'pipe:0']
  const vf = filters.length > 0 ? ['-vf', filters.join(',')] : []
  execFileSync('ffmpeg', ['-loglevel', 'error', '-y', ...raw, ...vf, ...output, path], { input })
}

/** Lossless, every frame decodable fast. */
export const h264 = ['-c:v', 'libx264', '-crf', '0', '-preset', 'ultrafast', '-pix_fmt', 'yuv444p']

/** Which frame of the clip a picture is: by its middle, which codecs leave within 1 or 2. */
export function frameIndex({ data, width, height }: { data: Uint8Array; width: number; height: number }): number {
  const middle = (Math.floor(height / 2) * width + Math.floor(width / 2)) * 3
  return Math.round(data[middle]! / 4) - 1
}
