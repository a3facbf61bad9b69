/*
 * How often boxes of a given score are right: a reliability table, and the threshold that best separates right from
 * wrong.
 *
 *   node scripts/demo-model/calibrate.mjs [--model demo/paligemma2-demo.gguf]
 *                                         [--pictures test/fixtures/demo-eval] [--json]
 *
 * Each picture is asked for every thing it holds and for as many things that it does not hold, one at a time: what a
 * model finds of the latter is wrong by definition. A box is right where its label's object overlaps it by more than
 * half (intersection over union) and no better box of the answer has taken that object.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { boxOverlap, loadModel } from '../../dist/index.js'

const scores = ['score', 'boxScore', 'labelScore']

/** Every box the model gives: its scores and whether it is right. */
async function collect(model, records, folder) {
  const known = [...new Set(records.flatMap((record) => record.objects.map((object) => object.label)))].sort()
  const boxes = []
  for (const [number, record] of records.entries()) {
    const image = await model.encodeImage(join(folder, record.file))
    const present = [...new Set(record.objects.map((object) => object.label))]
    const absent = known.filter((label) => !present.includes(label))
    const asked = [...present, ...present.map((_, i) => absent[(number * 7 + i * 3) % absent.length])]
    for (const label of asked) {
      const truths = record.objects
        .filter((object) => object.label === label)
        .map(({ box: [yMin, xMin, yMax, xMax] }) => ({ yMin, xMin, yMax, xMax }))
      const nothing = truths.length === 0
      const found = (await model.detect(image, label)).sort((a, b) => b.score - a.score)
      for (const box of found) {
        const overlaps = truths.map((truth) => boxOverlap(truth, box.normalized))
        const best = overlaps.indexOf(Math.max(...overlaps))
        const right = best >= 0 && overlaps[best] > 0.5
        if (right) truths.splice(best, 1)
        boxes.push({ right, absent: nothing, ...Object.fromEntries(scores.map((name) => [name, box[name]])) })
      }
    }
  }
  return boxes
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length)

/** Tenths of the boxes by score, least first: bounds, how many are right. */
function reliability(boxes, name) {
  const sorted = [...boxes].sort((a, b) => a[name] - b[name])
  const bins = Array.from({ length: 10 }, (_, i) =>
    sorted.slice(Math.floor((sorted.length * i) / 10), Math.floor((sorted.length * (i + 1)) / 10))
  ).filter((bin) => bin.length > 0)
  return bins.map((bin) => ({
    from: bin[0][name],
    to: bin.at(-1)[name],
    boxes: bin.length,
    mean: mean(bin.map((box) => box[name])),
    right: mean(bin.map((box) => Number(box.right)))
  }))
}

/** Chance that a right box has a higher score than a wrong one. */
function separation(boxes, name) {
  const right = boxes.filter((box) => box.right)
  const wrong = boxes.filter((box) => !box.right)
  const wins = right.reduce(
    (sum, a) => sum + wrong.reduce((won, b) => won + (a[name] > b[name] ? 1 : a[name] === b[name] ? 0.5 : 0), 0),
    0
  )
  return wins / Math.max(1, right.length * wrong.length)
}

/**
 * What each `minScore` leaves: boxes, how many of them are right, how many of the right ones are kept, and their F1.
 */
function thresholds(boxes) {
  const right = boxes.filter((box) => box.right).length
  return [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9].map((minScore) => {
    const kept = boxes.filter((box) => box.score >= minScore)
    const good = kept.filter((box) => box.right).length
    return {
      minScore,
      boxes: kept.length,
      precision: good / Math.max(1, kept.length),
      kept: good / Math.max(1, right),
      absent: kept.filter((box) => box.absent).length,
      f1: (2 * good) / Math.max(1, kept.length + right)
    }
  })
}

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: 'demo/paligemma2-demo.gguf' },
    pictures: { type: 'string', default: 'test/fixtures/demo-eval' },
    json: { type: 'boolean', default: false }
  }
})
const records = JSON.parse(await readFile(join(values.pictures, 'truth.json'), 'utf8'))
const model = await loadModel(values.model)
const boxes = await collect(model, records, values.pictures)
await model.dispose()
const report = Object.fromEntries(
  scores.map((name) => {
    const bins = reliability(boxes, name)
    return [
      name,
      {
        separation: separation(boxes, name),
        calibrationError:
          bins.reduce((sum, bin) => sum + bin.boxes * Math.abs(bin.mean - bin.right), 0) / Math.max(1, boxes.length),
        bins
      }
    ]
  })
)
if (values.json)
  console.log(
    JSON.stringify(
      {
        boxes: boxes.length,
        right: mean(boxes.map((box) => Number(box.right))),
        ...report,
        thresholds: thresholds(boxes)
      },
      null,
      2
    )
  )
else {
  console.log(
    `${boxes.length} boxes on ${records.length} pictures, ` +
      `${(100 * mean(boxes.map((box) => Number(box.right)))).toFixed(1)} % right\n`
  )
  console.log(
    '| | a right box scores higher than a wrong one | mean distance of score and share that is right |\n| --- | --- ' +
      '| --- |'
  )
  for (const name of scores)
    console.log(
      `| \`${name}\` | ${(100 * report[name].separation).toFixed(1)} % | ${report[name].calibrationError.toFixed(3)} |`
    )
  console.log('\n| `score` | boxes | right |\n| --- | --- | --- |')
  for (const { from, to, boxes: count, right } of report.score.bins)
    console.log(`| ${from.toFixed(2)} .. ${to.toFixed(2)} | ${count} | ${(100 * right).toFixed(0)} % |`)
  console.log(
    '\n| `minScore` | boxes | right | of the right ones kept | boxes of absent things | F1 |\n| --- | --- | --- | ' +
      '--- | --- | --- |'
  )
  for (const { minScore, boxes: count, precision, kept, absent, f1 } of thresholds(boxes))
    console.log(
      `| ${minScore} | ${count} | ${(100 * precision).toFixed(0)} % | ${(100 * kept).toFixed(0)} % | ${absent} | ` +
        `${f1.toFixed(3)} |`
    )
}
