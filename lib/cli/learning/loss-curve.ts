/** The losses of a training run as a picture. */
import { loadSharp } from '../../images/sharp'
import type { FitEvaluation } from '../../train/options'

const size = { width: 800, height: 400, margin: 50 }

/** A PNG: every step's loss, its smoothed course, and the held-out losses as dots. */
export async function lossCurve(losses: readonly number[], evaluation: readonly FitEvaluation[]): Promise<Buffer> {
  const sharp = await loadSharp()
  return await sharp(Buffer.from(drawing(losses, evaluation)))
    .png()
    .toBuffer()
}

/** The same as SVG. */
export function drawing(losses: readonly number[], evaluation: readonly FitEvaluation[]): string {
  const { width, height, margin } = size
  const top = Math.max(...losses, ...evaluation.map(({ loss }) => loss), 1e-9)
  const x = (step: number): number => margin + ((step - 1) / Math.max(losses.length - 1, 1)) * (width - 2 * margin)
  const y = (loss: number): number => height - margin - (loss / top) * (height - 2 * margin)
  const line = (values: readonly number[], style: string): string => {
    const points = values.map((loss, i) => `${x(i + 1).toFixed(1)},${y(loss).toFixed(1)}`)
    return `<polyline fill="none" ${style} points="${points.join(' ')}"/>`
  }
  const dots = evaluation.map(({ step, loss }) => `<circle cx="${x(step)}" cy="${y(loss)}" r="4" fill="#c2410c"/>`)
  const label = (atX: number, atY: number, text: string, anchor: string): string =>
    `<text x="${atX}" y="${atY}" text-anchor="${anchor}" font-family="sans-serif" font-size="14">${text}</text>`
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">` +
    `<rect width="${width}" height="${height}" fill="white"/>` +
    `<path d="M${margin},${margin} V${height - margin} H${width - margin}" stroke="#444" fill="none"/>` +
    line(losses, 'stroke="#93c5fd"') +
    line(smoothed(losses), 'stroke="#1d4ed8" stroke-width="2"') +
    dots.join('') +
    label(margin - 6, margin + 5, top.toPrecision(3), 'end') +
    label(margin - 6, height - margin + 5, '0', 'end') +
    label(width - margin, height - margin + 20, `${losses.length} steps`, 'end') +
    '</svg>'
  )
}

function smoothed(losses: readonly number[]): number[] {
  let mean = losses[0] ?? 0
  return losses.map((loss) => (mean = 0.9 * mean + 0.1 * loss))
}
