/*
 * Scores a model file on held-out pictures through the engine.
 *
 *   node scripts/demo-model/evaluate.mjs [--model demo/paligemma2-demo.gguf]
 *                                        [--pictures test/fixtures/demo-eval] [--limit N] [--json | --each]
 *
 * --each scores every picture by itself, best first: its worst score, then its file.
 *
 * The pictures come from draw_eval.py; the numbers are defined as in evaluate.py.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { loadModel } from '../../dist/index.js'

const MASK = 64 // side of a truth mask, which covers its object's box

/** Bits of a truth mask, row-major. */
function maskBits(base64) {
  const bytes = Buffer.from(base64, 'base64')
  return (y, x) => (bytes[(y * MASK + x) >> 3] >> (7 - (x & 7))) & 1
}

/** Fills a full-picture mask from a truth mask and its box [y0, x0, y1, x1] in 0..1. */
function pasteTruth(object, width, height) {
  const [y0, x0, y1, x1] = object.box
  const bit = maskBits(object.mask)
  const full = new Uint8Array(width * height)
  for (let y = 0; y < height; y++) {
    const v = Math.floor((((y + 0.5) / height - y0) / (y1 - y0)) * MASK)
    if (v < 0 || v >= MASK) continue
    for (let x = 0; x < width; x++) {
      const u = Math.floor((((x + 0.5) / width - x0) / (x1 - x0)) * MASK)
      if (u >= 0 && u < MASK) full[y * width + x] = bit(v, u)
    }
  }
  return full
}

function boxIou([ay0, ax0, ay1, ax1], [by0, bx0, by1, bx1]) {
  const h = Math.max(0, Math.min(ay1, by1) - Math.max(ay0, by0))
  const w = Math.max(0, Math.min(ax1, bx1) - Math.max(ax0, bx0))
  return (h * w) / ((ay1 - ay0) * (ax1 - ax0) + (by1 - by0) * (bx1 - bx0) - h * w + 1e-9)
}

function maskIou(a, b) {
  let both = 0
  let either = 0
  for (let i = 0; i < a.length; i++) {
    both += a[i] & b[i]
    either += a[i] | b[i]
  }
  return both / Math.max(1, either)
}

/** Best score of each wanted thing; an answer counts once and only under its own label. */
function match(wanted, got, score) {
  const pairs = wanted
    .flatMap((w, i) => got.map((g, j) => ({ i, j, value: w.label === g.label ? score(w, g) : 0 })))
    .filter((pair) => pair.value > 0)
    .sort((a, b) => b.value - a.value)
  const best = new Array(wanted.length).fill(0)
  const used = new Set()
  for (const { i, j, value } of pairs) {
    if (best[i] > 0 || used.has(j)) continue
    best[i] = value
    used.add(j)
  }
  return best
}

const mean = (values) => values.reduce((sum, v) => sum + v, 0) / Math.max(1, values.length)

function expected(record, labels) {
  return labels.flatMap((label) =>
    record.objects.filter((o) => o.label === label || o.shape === label).map((o) => ({ ...o, label }))
  )
}

/**
 * @param model a loaded PaliGemma
 * @param records entries of truth.json
 * @param folder where their pictures lie
 * @returns {Promise<Record<string, number>>} scores in 0..1
 */
export async function evaluate(model, records, folder) {
  const boxes = []
  let answered = 0
  const masks = []
  const maskBoxes = []
  const answers = new Map()
  const captions = []
  const printed = { numbers: [], words: [] }
  for (const record of records) {
    const image = await model.encodeImage(join(folder, record.file))

    const found = await model.detect(join(folder, record.file), record.detect)
    answered += found.length
    const got = found.map(({ label, normalized: n }) => ({ label, box: [n.yMin, n.xMin, n.yMax, n.xMax] }))
    boxes.push(...match(expected(record, record.detect), got, (w, g) => boxIou(w.box, g.box)))

    const segments = await model.segment(join(folder, record.file), record.segment)
    const drawn = segments.map(({ label, normalized: n, mask }) => ({
      label,
      box: [n.yMin, n.xMin, n.yMax, n.xMax],
      ...mask,
      data: Uint8Array.from(mask.data, (v) => (v > 127 ? 1 : 0))
    }))
    const wanted = expected(record, record.segment)
    masks.push(...match(wanted, drawn, (w, g) => maskIou(pasteTruth(w, g.width, g.height), g.data)))
    maskBoxes.push(...match(wanted, drawn, (w, g) => boxIou(w.box, g.box)))

    for (const { kind, question, answer } of record.questions) {
      const text = await model.answer(image, question)
      if (!answers.has(kind)) answers.set(kind, [])
      answers.get(kind).push(Number(text.trim() === answer))
    }
    captions.push(Number((await model.caption(image, { style: 'coco' })).trim() === record.caption))
    if (record.text) {
      const right = Number((await model.ocr(image)).trim() === record.text)
      printed[/^\d+$/.test(record.text) ? 'numbers' : 'words'].push(right)
    }
  }
  return {
    'detect: recall, IoU > 0.5 and right label': mean(boxes.map((v) => Number(v > 0.5))),
    'detect: precision': boxes.filter((v) => v > 0.5).length / Math.max(1, answered),
    'detect: mean IoU of the boxes found': mean(boxes.filter((v) => v > 0.5)),
    'detect: mean IoU, a missed box counts 0': mean(boxes),
    'segment: recall, box IoU > 0.5 and right label': mean(maskBoxes.map((v) => Number(v > 0.5))),
    'segment: mean mask IoU of the objects found': mean(masks.filter((_, i) => maskBoxes[i] > 0.5)),
    'segment: mean mask IoU, a missed mask counts 0': mean(masks),
    ...Object.fromEntries([...answers].sort().map(([kind, hits]) => [`answer: ${kind}`, mean(hits)])),
    'caption: exactly right': mean(captions),
    'ocr: numbers': mean(printed.numbers),
    'ocr: words': mean(printed.words),
    'everything: each box, mask, answer, caption and text counts once': mean([
      ...boxes,
      ...masks,
      ...[...answers.values()].flat(),
      ...captions,
      ...printed.numbers,
      ...printed.words
    ])
  }
}

/**
 * Log-probabilities that the model gives the right captions, token by token, the end token included.
 *
 * @returns {Promise<number[]>}
 */
export async function captionLogProbs(model, records, folder) {
  const all = []
  for (const record of records) {
    const { logProbs } = await model.score({
      image: join(folder, record.file),
      prompt: 'caption en',
      suffix: record.caption
    })
    all.push(...logProbs)
  }
  return all
}

if (import.meta.main ?? process.argv[1]?.endsWith('evaluate.mjs')) {
  const { values } = parseArgs({
    options: {
      model: { type: 'string', default: 'demo/paligemma2-demo.gguf' },
      pictures: { type: 'string', default: 'test/fixtures/demo-eval' },
      limit: { type: 'string' },
      json: { type: 'boolean', default: false },
      each: { type: 'boolean', default: false }
    }
  })
  const records = JSON.parse(await readFile(join(values.pictures, 'truth.json'), 'utf8'))
  const used = records.slice(0, values.limit ? Number(values.limit) : undefined)
  const model = await loadModel(values.model)
  if (values.each) {
    const lines = []
    for (const record of used) {
      const scores = Object.entries(await evaluate(model, [record], values.pictures))
        .filter(([name]) => record.text || !name.startsWith('ocr'))
        .filter(([name]) => name !== `ocr: ${/^\d+$/.test(record.text) ? 'words' : 'numbers'}`)
      lines.push({ worst: Math.min(...scores.map(([, value]) => value)), file: record.file })
    }
    lines.sort((a, b) => b.worst - a.worst)
    for (const { worst, file } of lines) console.log(worst.toFixed(3), file)
    await model.dispose()
    process.exit()
  }
  const started = performance.now()
  const scores = await evaluate(model, used, values.pictures)
  const seconds = (performance.now() - started) / 1000
  await model.dispose()
  if (values.json) console.log(JSON.stringify(scores, null, 2))
  else {
    console.log(`| held out (${used.length} pictures, ${seconds.toFixed(1)} s) | score |\n| --- | --- |`)
    for (const [name, value] of Object.entries(scores)) console.log(`| ${name} | ${value.toFixed(3)} |`)
  }
}
