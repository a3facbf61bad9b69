/** Metrics against published examples and the numbers of independent implementations. */
import { describe, expect, it } from 'vitest'
import { anls } from '../../lib/measure/metrics/anls'
import { captionWords, ciderScores } from '../../lib/measure/metrics/cider'
import { CocoEvaluation } from '../../lib/measure/metrics/coco'
import { normalizeAnswer, vqaAccuracy } from '../../lib/measure/metrics/vqa'

describe('VQA accuracy', () => {
  // visualqa.org/evaluation.html: min(people who said it / 3, 1), averaged over all sets of nine of the ten people
  it.each([
    [0, 0],
    [1, 0.3],
    [2, 0.6],
    [3, 0.9],
    [4, 1],
    [10, 1]
  ])('of an answer that %d of ten people gave is %d', (count, score) => {
    const answers = Array.from({ length: 10 }, (_, i) => (i < count ? 'Yes.' : `other ${i}`))
    expect(vqaAccuracy('yes', answers)).toBeCloseTo(score, 12)
  })

  it('takes one that agrees where few were asked', () => {
    expect(vqaAccuracy('Two', ['2'])).toBe(1)
    expect(vqaAccuracy('cat', ['dog', 'the cat', 'cow'])).toBe(1)
    expect(vqaAccuracy('cat', ['dog'])).toBe(0)
  })

  // what the official normalization does with its own kinds: numbers, articles, contractions, punctuation
  it.each([
    ['A cat', 'cat'],
    ['the  Two\tdogs', '2 dogs'],
    ['none', '0'],
    ['dont know', "don't know"],
    ["couldnt've", "couldn't've"],
    ["shouldn'tve", "shouldn't've"],
    ['1,000', '1000'],
    ['yes, it is', 'yes it is'],
    ['black/white', 'black white'],
    ['3.5 m.', '3.5 m'],
    ['U.S.A.', 'usa'],
    ['t-shirt', 't shirt'],
    ['what?', 'what'],
    ['', '']
  ])('normalizes %j to %j', (answer, normal) => {
    expect(normalizeAnswer(answer)).toBe(normal)
  })
})

describe('ANLS', () => {
  it.each([
    ['nestle', ['Nestle'], 1],
    ['nestle ltd', ['Nestle', 'nestle  LTD'], 1],
    ['1 Jan', ['1 jan 1980'], 0], // half of it or more is missing
    ['color', ['colour'], 1 - 1 / 6],
    ['abcd', ['abxx'], 0], // a half is not under the threshold
    ['', ['a'], 0]
  ])('of %j for %j is %d', (prediction, answers, score) => {
    expect(anls(prediction, answers)).toBeCloseTo(score, 12)
  })
})

describe('CIDEr-D', () => {
  // Computed with numpy from the definition in the paper: vectors over all n-grams, cosines with clipped counts.
  it('is that of the definition', () => {
    const captions: [string, string[]][] = [
      ['A cat sits on a mat.', ['a cat is sitting on a mat', 'the cat sat on the mat', 'a small cat on a mat']],
      ['two dogs play in the park', ['two dogs playing in a park', 'a pair of dogs run through the park']],
      [
        'a red bus',
        ['a red double decker bus on the street', 'a bus drives down the street', 'the red bus is on a street']
      ],
      ['a man rides a wave on a surfboard', ['a man riding a wave on top of a surfboard', 'a surfer rides a big wave']],
      ['the the the the cat', ['a dog on a bench', 'a brown dog sits on a bench!']]
    ]
    const scores = ciderScores(captions.map(([prediction, references]) => ({ prediction, references })))
    const expected = [2.5964083964914866, 1.9121652648496597, 1.507835060215696, 2.3832543023517023, 0]
    for (const [i, score] of scores.entries()) expect(score).toBeCloseTo(expected[i]!, 12)
  })

  it('splits words as captions are judged', () => {
    expect(captionWords("It's a well-lit room; they don't mind -- Größe 3!")).toEqual(
      ['it', "'s", 'a', 'well-lit', 'room', 'they', 'do', "n't", 'mind', 'größe', '3'] // no punctuation
    )
    expect(ciderScores([{ prediction: '', references: ['a'] }])).toEqual([0])
  })
})

type Box = [number, number, number, number]

function overlapOf([ax, ay, aw, ah]: Box, [bx, by, bw, bh]: Box, crowd: boolean): number {
  const w = Math.max(0, Math.min(ax + aw, bx + bw) - Math.max(ax, bx))
  const h = Math.max(0, Math.min(ay + ah, by + bh) - Math.max(ay, by))
  return (w * h) / (crowd ? aw * ah : aw * ah + bw * bh - w * h)
}

/** Twelve pictures of three labels, of all sizes, with crowds and equal scores. */
function fill(evaluation: CocoEvaluation): void {
  let state = 11
  const random = (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return (state >>> 8) % below
  }
  for (let picture = 0; picture < 12; picture++)
    for (const label of ['1', '2', '3']) {
      const truths: { box: Box; area: number; crowd: boolean }[] = []
      const detections: { box: Box; area: number; score: number }[] = []
      const detect = (box: Box, score: number): unknown => detections.push({ box, area: box[2] * box[3], score })
      for (let k = random(4); k > 0; k--) {
        const size = [20, 60, 180][random(3)]!
        const [w, h] = [(size >> 1) + random(size), (size >> 1) + random(size)]
        const [x, y] = [random(w < 400 ? 400 - w : 1), random(h < 300 ? 300 - h : 1)]
        truths.push({ crowd: random(6) === 0, box: [x, y, w, h], area: Math.floor((w * h * 3) / 4) })
        for (let m = random(3); m > 0; m--) {
          const move = (side: number): number => side + random(size >> 2) - (size >> 3)
          detect([move(x), move(y), move(w), move(h)], (50 + random(50)) / 100)
        }
      }
      for (let k = random(2); k > 0; k--)
        detect([random(300), random(200), 10 + random(90), 10 + random(90)], random(100) / 100)
      const overlaps = detections.map(({ box }) => truths.map((truth) => overlapOf(box, truth.box, truth.crowd)))
      evaluation.add(label, { detections, truths, overlaps })
    }
}

describe("COCO's metrics", () => {
  it('are those of pycocotools 2.0.11 over the same boxes', () => {
    const evaluation = new CocoEvaluation()
    fill(evaluation)
    const expected = [
      ...[0.2601616170020363, 0.5336162187647338, 0.22695269526952694, 0.12524752475247525, 0.22680418041804182],
      ...[0.37555136466027556, 0.18611111111111114, 0.31833333333333336, 0.31833333333333336, 0.13333333333333333],
      ...[0.2650793650793651, 0.4444444444444444]
    ]
    for (const [i, value] of Object.values(evaluation.scores()).entries()) expect(value).toBeCloseTo(expected[i]!, 12)
    const { 1: one, 2: two, 3: three } = evaluation.labels()
    expect([one, two, three].map((value) => value!.toFixed(10))).toEqual([
      '0.2096652522',
      '0.2650964382',
      '0.3057231606'
    ])
  })

  it('are null where there is nothing of a kind, and count at most a hundred', () => {
    const evaluation = new CocoEvaluation()
    expect(evaluation.scores()).toMatchObject({ AP: null, AR100: null })
    evaluation.add('a', { detections: [{ score: 1, area: 9 }], truths: [], overlaps: [[]] })
    expect(evaluation.scores().AP).toBeNull() // as pycocotools: no truth, no number
    evaluation.add('a', {
      detections: [{ score: 0.9, area: 100 }],
      truths: [{ area: 100, crowd: false }],
      overlaps: [[1]]
    })
    expect(evaluation.scores()).toMatchObject({ APsmall: 0.5, APlarge: null, AR1: 1 })
    const many = Array.from({ length: 150 }, (_, i) => ({ score: 1 - i / 1000, area: 100 }))
    const late = new CocoEvaluation()
    const overlaps = many.map((_, i) => [i === 149 ? 1 : 0])
    late.add('a', { detections: many, truths: [{ area: 100, crowd: false }], overlaps })
    expect(late.scores().AR100).toBe(0)
  })
})
