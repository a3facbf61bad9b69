/** What the demo model must say on every machine: a picture drawn here, prompts, the tokens and their probabilities. */
import type { RawPixels } from '../images/image-input'

/** SHA-256 of demo/paligemma2-demo.gguf. */
export const demoChecksum = '1e1394f1d98738e66c8e0dd19061daa93acd69fc5ef82d9622d6348f4ff7ef52'

/** A red circle and a blue square on light grey: needs no decoder. */
export function demoPicture(): RawPixels {
  const size = 112
  const data = new Uint8Array(size * size * 3)
  for (let y = 0; y < size; y++)
    for (let x = 0; x < size; x++) {
      const circle = (x - 30) ** 2 + (y - 40) ** 2 < 20 ** 2
      const square = x >= 62 && x < 98 && y >= 52 && y < 88
      data.set(circle ? [220, 40, 40] : square ? [40, 70, 210] : [236, 236, 232], (y * size + x) * 3)
    }
  return { data, width: size, height: size, channels: 3 }
}

/** What the scalar kernels, which compute in 32 bits, find. */
export interface DemoAnswer {
  prompt: string
  text: string
  /** In nats, of the text's tokens and the end. */
  logProb: number
}

export const demoAnswers: readonly DemoAnswer[] = [
  { prompt: 'caption en', text: 'a red circle and a blue square on a plain background', logProb: -0.006 },
  { prompt: 'answer en what color is the circle?', text: 'red', logProb: -0.0006 },
  {
    prompt: 'detect red circle ; blue square',
    text: '<loc0189><loc0099><loc0550><loc0459> red circle ; ' + '<loc0470><loc0563><loc0808><loc0902> blue square',
    logProb: -18.896
  }
]

/** Of `logProb`: other kernels round activations to 8 bits, which moved it by 0.003 at most where it was measured. */
export const demoTolerance = 0.1

/** Steps of 1/1023: between neighbouring places a last digit decides (the Arm tables say 806 for 805). */
const locationTolerance = 4

/** Whether a text is the expected one, but for places that are a hair away. */
export function sameAnswer(found: string, expected: string): boolean {
  const location = /<loc(\d{4})>/g
  const places = (text: string): number[] => [...text.matchAll(location)].map(([, digits]) => Number(digits))
  const [is, should] = [places(found), places(expected)]
  if (found.replace(location, '<loc>') !== expected.replace(location, '<loc>')) return false
  return is.every((place, i) => Math.abs(place - should[i]!) <= locationTolerance)
}
