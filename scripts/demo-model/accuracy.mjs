/*
 * What a type of the weights costs, and what 8-bit activations add to it: held-out scores and teacher-forced
 * log-probabilities for every type, on every kernel table of this machine. The scalar table computes in f32.
 *
 *   node scripts/demo-model/accuracy.mjs --pictures DIR [--limit N] [--type T]... [--table T]... [--model F.gguf]
 *                                        [--checkpoint DIR] [--json]
 *
 * --pictures: from draw_eval.py. --model: default demo/paligemma2-demo.gguf, through its wide copy (widen.mjs), so that
 * K types take part; its weights are Q8_0, which is what the other types start from.
 * --checkpoint: also a Hugging Face checkpoint with the reference's answers (expected.json, as golden/hf/pg2-k of the
 * tests), whose suffixes are scored.
 */
import { createRequire } from 'node:module'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { captionLogProbs, evaluate } from './evaluate.mjs'
import { widen } from './widen.mjs'

const require = createRequire(import.meta.url)
const { loadModel } = require('../../dist/index.js')
const { convert } = require('../../dist/convert/index.js')
const { quantize } = require('../../dist/convert/quantize.js')
const { native } = require('../../dist/engine/native.js')

const shown = {
  'detect: recall': 'detect: recall, IoU > 0.5 and right label',
  'box IoU': 'detect: mean IoU, a missed box counts 0',
  'mask IoU': 'segment: mean mask IoU, a missed mask counts 0',
  count: 'answer: count',
  color: 'answer: color',
  caption: 'caption: exactly right',
  'ocr: numbers': 'ocr: numbers',
  'ocr: words': 'ocr: words',
  everything: 'everything: each box, mask, answer, caption and text counts once'
}

/** Runs `use` with the model on a kernel table; the engine reads the variable while it loads. */
async function onTable(table, path, options, use) {
  process.env.PALIGEMMA_ISA = table
  // a model this small keeps no second thread busy
  const model = await loadModel({ model: path, threads: 1, ...options })
  try {
    return await use(model)
  } finally {
    await model.dispose()
  }
}

/** Mean and largest absolute difference. */
function error(values, reference) {
  const differences = values.map((x, i) => Math.abs(x - reference[i]))
  return { mean: differences.reduce((sum, x) => sum + x, 0) / differences.length, largest: Math.max(...differences) }
}

/**
 * The model at `path` on each table.
 *
 * @returns {Promise<Record<string, { scores: Record<string, number>, logProbs: number[] }>>}
 */
export async function onTables(tables, path, records, folder) {
  const results = {}
  for (const table of tables) {
    results[table] = await onTable(table, path, {}, async (model) => ({
      scores: await evaluate(model, records, folder),
      logProbs: await captionLogProbs(model, records, folder)
    }))
  }
  return results
}

async function suffixLogProbs(table, path, folder, cases) {
  return await onTable(table, path, { kvCacheType: 'f32', attentionWindow: 'suffix' }, async (model) => {
    const all = []
    for (const { images, prompt, suffix } of cases) {
      all.push(
        ...(await model.score({ images: images.map((file) => join(folder, 'images', file)), prompt, suffix })).logProbs
      )
    }
    return all
  })
}

function print(columns, rows) {
  console.log(`| ${columns.join(' | ')} |\n|${' --- |'.repeat(columns.length)}`)
  for (const row of rows) console.log(`| ${row.join(' | ')} |`)
  console.log()
}

const percent = (part, of) => (of > 0 ? `${((100 * part) / of).toFixed(2)} %` : '')
const shownError = ({ mean, largest }) => `${mean.toFixed(4)} (${largest.toFixed(2)})`

// biome-ignore lint/complexity/noExcessiveLinesPerFunction: one experiment, read from top to bottom
async function main() {
  const { values } = parseArgs({
    options: {
      model: { type: 'string', default: 'demo/paligemma2-demo.gguf' },
      pictures: { type: 'string', default: 'test/fixtures/demo-eval' },
      limit: { type: 'string' },
      type: { type: 'string', multiple: true, default: ['F32', 'F16', 'Q8_0', 'Q6_K', 'Q5_K', 'Q4_K', 'Q4_0'] },
      table: { type: 'string', multiple: true, default: native().cpuInfo().supported },
      checkpoint: { type: 'string' },
      json: { type: 'boolean', default: false }
    }
  })
  const others = values.table.filter((table) => table !== 'scalar')
  const tables = ['scalar', ...others]
  const records = JSON.parse(await readFile(join(values.pictures, 'truth.json'), 'utf8')).slice(
    0,
    values.limit ? Number(values.limit) : undefined
  )
  const dir = await mkdtemp(join(tmpdir(), 'paligemma-accuracy-'))
  try {
    const wide = join(dir, 'wide.gguf')
    await widen(values.model, wide)
    const ofType = async (type, make) => {
      const path = join(dir, `${type}.gguf`)
      await make(path)
      process.stderr.write(`${type}\n`)
      return path
    }
    const demo = {}
    for (const type of values.type) {
      const path = await ofType(type, async (out) => await quantize({ source: wide, out, type }))
      demo[type] = await onTables(tables, path, records, values.pictures)
    }
    const golden = {}
    if (values.checkpoint) {
      const cases = JSON.parse(await readFile(join(values.checkpoint, 'expected.json'), 'utf8')).cases.filter(
        ({ kind }) => kind === 'score'
      )
      golden.reference = cases.flatMap(({ logprobs }) => logprobs)
      for (const type of values.type) {
        const path = await ofType(
          `checkpoint ${type}`,
          async (out) => await convert({ source: values.checkpoint, out, type })
        )
        golden[type] = {}
        for (const table of tables) golden[type][table] = await suffixLogProbs(table, path, values.checkpoint, cases)
      }
    }
    if (values.json) return console.log(JSON.stringify({ pictures: records.length, demo, golden }))

    console.log(
      `${records.length} held-out pictures, ${demo[values.type[0]].scalar.logProbs.length} tokens of captions\n`
    )
    const names = Object.keys(shown)
    print(
      ['type, f32 activations', ...names],
      values.type.map((type) => [type, ...names.map((name) => demo[type].scalar.scores[shown[name]].toFixed(3))])
    )
    // What a table takes from each score of the same file; below zero it adds.
    print(
      ['type', 'table: drop of', ...names],
      values.type.flatMap((type) =>
        others.map((table) => [
          type,
          table,
          ...names.map((name) => {
            const of = demo[type].scalar.scores[shown[name]]
            return percent(of - demo[type][table].scores[shown[name]], of)
          })
        ])
      )
    )
    const first = demo[values.type[0]].scalar.logProbs
    print(
      [
        `log-probabilities, mean (largest) error`,
        `scalar against ${values.type[0]}`,
        ...others.map((table) => `${table} against scalar`)
      ],
      values.type.map((type) => [
        type,
        shownError(error(demo[type].scalar.logProbs, first)),
        ...others.map((table) => shownError(error(demo[type][table].logProbs, demo[type].scalar.logProbs)))
      ])
    )
    if (values.checkpoint) {
      print(
        [
          'checkpoint: log-probabilities, mean (largest) error',
          ...tables.map((table) => `${table} against the reference`),
          ...others.map((table) => `${table} against scalar`)
        ],
        values.type.map((type) => [
          type,
          ...tables.map((table) => shownError(error(golden[type][table], golden.reference))),
          ...others.map((table) => shownError(error(golden[type][table], golden[type].scalar)))
        ])
      )
    }
  } finally {
    await rm(dir, { recursive: true, force: true })
  }
}

if (import.meta.main ?? process.argv[1]?.endsWith('accuracy.mjs')) await main()
