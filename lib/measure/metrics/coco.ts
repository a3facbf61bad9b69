/** COCO's detection metrics (https://cocodataset.org/#detection-eval), to the last digit as pycocotools has them. */

/** As numpy.linspace rounds them: detections may lie exactly on one. */
const linspace = (from: number, to: number, count: number): number[] =>
  Array.from({ length: count }, (_, i) => (i === count - 1 ? to : from + i * ((to - from) / (count - 1))))
const thresholds = linspace(0.5, 0.95, 10)
const recalls = linspace(0, 1, 101)
const ranges = { all: [0, 1e10], small: [0, 1024], medium: [1024, 9216], large: [9216, 1e10] } as const
type Range = keyof typeof ranges
const limits = [1, 10, 100] as const

/** The objects of one label on one picture. */
export interface CocoGroup {
  detections: { score: number; area: number }[]
  /** Groups ("crowd") may be found any number of times, or not at all. */
  truths: { area: number; crowd: boolean }[]
  /** Intersection over union; over the detection's area where the truth is a crowd. [detection][truth] */
  overlaps: number[][]
}

/** COCO's twelve numbers, 0..1 each, as pycocotools computes them. */
export interface CocoScores {
  /** Average precision, the mean over ten thresholds of IoU, 0.5 to 0.95. null: there is nothing to find. */
  AP: number | null
  /** At the threshold 0.5. */
  AP50: number | null
  /** At the threshold 0.75. */
  AP75: number | null
  /** Of objects up to 32 x 32 pixels; null: there is none. */
  APsmall: number | null
  /** Of objects from 32 x 32 to 96 x 96 pixels; null: there is none. */
  APmedium: number | null
  /** Of objects from 96 x 96 pixels on; null: there is none. */
  APlarge: number | null
  /** Recall, the mean over the ten thresholds, with at most one detection a picture and label. */
  AR1: number | null
  /** With at most ten. */
  AR10: number | null
  /** With at most a hundred. */
  AR100: number | null
  /** With at most a hundred, of objects as in `APsmall`. */
  ARsmall: number | null
  /** With at most a hundred, of objects as in `APmedium`. */
  ARmedium: number | null
  /** With at most a hundred, of objects as in `APlarge`. */
  ARlarge: number | null
}

/** What became of the detections of a group at one threshold. */
interface Judged {
  scores: number[]
  /** [threshold][detection] */
  matched: boolean[][]
  ignored: boolean[][]
  /** Truths that count. */
  wanted: number
}

/** Label by label, for one range of sizes. */
type Judgements = Map<string, Judged[]>

export class CocoEvaluation {
  private readonly judgements: Record<Range, Judgements> = {
    all: new Map(),
    small: new Map(),
    medium: new Map(),
    large: new Map()
  }

  add(label: string, group: CocoGroup): void {
    for (const range of Object.keys(ranges) as Range[]) {
      const of = this.judgements[range]
      const list = of.get(label) ?? []
      list.push(judge(group, ranges[range]))
      of.set(label, list)
    }
  }

  scores(labels?: readonly string[]): CocoScores {
    const curves = (range: Range, most: number): Curve[] =>
      [...this.judgements[range]]
        .filter(([label]) => !labels || labels.includes(label))
        .flatMap(([, judged]) => curve(judged, most) ?? [])
    const [all, one, ten] = [curves('all', 100), curves('all', 1), curves('all', 10)]
    const [small, medium, large] = (['small', 'medium', 'large'] as const).map((range) => curves(range, 100))
    return {
      ...{ AP: precision(all), AP50: precision(all, 0), AP75: precision(all, 5) },
      ...{ APsmall: precision(small!), APmedium: precision(medium!), APlarge: precision(large!) },
      ...{ AR1: recall(one), AR10: recall(ten), AR100: recall(all) },
      ...{ ARsmall: recall(small!), ARmedium: recall(medium!), ARlarge: recall(large!) }
    }
  }

  /** AP of each label. */
  labels(): Record<string, number | null> {
    return Object.fromEntries([...this.judgements.all.keys()].map((label) => [label, this.scores([label]).AP]))
  }
}

const mean = (values: readonly number[]): number | null =>
  values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length

const precision = (curves: Curve[], threshold?: number): number | null =>
  mean(curves.flatMap(({ precisions }) => (threshold === undefined ? precisions.flat() : precisions[threshold]!)))

const recall = (curves: Curve[]): number | null => mean(curves.flatMap(({ reached }) => reached))

/** Indices in the order of falling scores; equal ones stay as they are. */
const byScore = (scores: readonly number[]): number[] => scores.map((_, i) => i).sort((a, b) => scores[b]! - scores[a]!)

function judge({ detections, truths, overlaps }: CocoGroup, [least, most]: readonly [number, number]): Judged {
  const outside = ({ area }: { area: number }): boolean => area < least || area > most
  const passed = truths.map((truth) => truth.crowd || outside(truth))
  // those that count come first
  const order = truths.map((_, i) => i).sort((a, b) => Number(passed[a]) - Number(passed[b]))
  const chosen = byScore(detections.map(({ score }) => score)).slice(0, limits[2])
  const matched: boolean[][] = []
  const ignored: boolean[][] = []
  for (const threshold of thresholds) {
    const taken = new Set<number>()
    const matches = chosen.map((d) => {
      let best: number | undefined
      let least = Math.min(threshold, 1 - 1e-10)
      for (const t of order) {
        if (taken.has(t) && !truths[t]!.crowd) continue
        // one that counts is better than any that does not
        if (best !== undefined && !passed[best] && passed[t]) break
        if (overlaps[d]![t]! < least) continue
        ;[best, least] = [t, overlaps[d]![t]!]
      }
      if (best !== undefined) taken.add(best)
      return best
    })
    matched.push(matches.map((t) => t !== undefined))
    ignored.push(matches.map((t, i) => (t === undefined ? outside(detections[chosen[i]!]!) : passed[t]!)))
  }
  const scores = chosen.map((d) => detections[d]!.score)
  return { scores, matched, ignored, wanted: passed.filter((is) => !is).length }
}

interface Curve {
  /** [threshold][recall] */
  precisions: number[][]
  /** Of all detections, at each threshold. */
  reached: number[]
}

/** Of a label over all pictures; undefined where there is nothing to find. */
function curve(judged: readonly Judged[], most: number): Curve | undefined {
  const wanted = judged.reduce((sum, one) => sum + one.wanted, 0)
  if (wanted === 0) return undefined
  const places = judged.flatMap(({ scores }, of) => scores.slice(0, most).map((score, at) => ({ score, of, at })))
  const order = byScore(places.map(({ score }) => score)).map((i) => places[i]!)
  const precisions: number[][] = []
  const reached: number[] = []
  for (const [t] of thresholds.entries()) {
    const found: { recall: number; precision: number }[] = []
    let [right, wrong] = [0, 0]
    for (const { of, at } of order) {
      if (!judged[of]!.ignored[t]![at]) judged[of]!.matched[t]![at] ? right++ : wrong++
      found.push({ recall: right / wanted, precision: right / (right + wrong + Number.EPSILON) })
    }
    reached.push(found.at(-1)?.recall ?? 0)
    // never lower than at a higher recall
    for (let i = found.length - 2; i >= 0; i--)
      found[i]!.precision = Math.max(found[i]!.precision, found[i + 1]!.precision)
    let i = 0
    precisions.push(
      recalls.map((recall) => {
        while (i < found.length && found[i]!.recall < recall) i++
        return found[i]?.precision ?? 0
      })
    )
  }
  return { precisions, reached }
}
