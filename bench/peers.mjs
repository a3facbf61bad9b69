// This package beside other engines for Node, on the same machine and threads, in turns: onnxruntime-node,
// node-llama-cpp and transformers.js, which are installed from npm into a folder of their own.
//   node bench/peers.mjs [--size 3b|small] [--threads 1,2] [--rounds 5] [--tokens 16] [--only JOBS] [--dir D]
//     [--json F]
//
// Models are random, of PaliGemma 2 3B's shapes at 224 px (or `small`: its layers, but a tenth of them and of its
// vocabulary). Each engine has a process of its own; after a warm-up they measure A B A B. 3b needs 10 GB of disk and
// as much memory; files stay in --dir, by default in the temporary folder, for the next run. Processor times are of all
// threads: what to compare where other programs have the cores as well. What is given to the peers for nothing:
// embeddings, causal instead of bidirectional attention, no sampling; onnxruntime also copies no cache. What is ours:
// of a prefill's last layer only what is asked for is computed, which is a third of a small model, little of a real
// one.
import { writeFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg } from 'node:os'
import costs from '../dist/measure/costs.js'
import limits from '../dist/measure/limits.js'
import { inspectModel } from '../dist/index.mjs'
import { start } from './peers/child.mjs'
import { install, ownFolder, peers } from './peers/install.mjs'
import { prepare, shapesOf } from './peers/jobs.mjs'
import { parseOptions, sizes } from './peers/options.mjs'
import { compared, markdown, median } from './peers/report.mjs'

const options = parseOptions(process.argv.slice(2))
const { size, rounds, tokens } = options
const prefill = 266 // the picture's 256 tokens, <bos>, 8 tokens and the newline
const say = (text) => process.stderr.write(`${text}\n`)

/** Runs of both, in turns, after two of each to warm up: with the second picture ours moves its vision weights. */
async function inTurns(pair, between) {
  const engines = []
  try {
    for (const { script, job } of [pair.ours, pair.theirs]) engines.push(await start(script, job))
    for (const { run } of [...engines, ...engines]) await run()
    const runs = [[], []]
    for (let round = 0; round < rounds; round++) {
      for (const [i, { run }] of engines.entries()) runs[i].push(await run())
      await between()
    }
    return { runs, isa: engines[0].info?.isa, loadMs: engines.map(({ loadMs }) => Math.round(loadMs)) }
  } finally {
    await Promise.all(engines.map(async ({ stop }) => await stop()))
  }
}

/** What a part's time means as a share of the machine's limit; nothing for engines that are not ours. */
async function shareOf(part, path, limit) {
  if (path === undefined) return undefined
  const { visionOps, prefillOps, decodeBytes } = costs.costsOf([await inspectModel(path, { maxArray: 0 })])
  const bytes = decodeBytes(prefill + tokens / 2)
  if (part === 'decode') return (ms) => bytes / ms / 1e6 / limit.readGBps
  if (limit.int8Gops === 0) return undefined
  return (ms) => (part === 'vision' ? visionOps : prefillOps(prefill)) / ms / 1e6 / limit.int8Gops
}

/** Parts of a whole prefill that ours computes: of this model, and of one with as many layers as 3B has. */
async function prefillWork(path) {
  const { prefillOps, wholePrefillOps } = costs.costsOf([await inspectModel(path, { maxArray: 0 })])
  const part = prefillOps(prefill) / wholePrefillOps(prefill)
  return { part, at3b: 1 - ((1 - part) * shapesOf(size).text.layers) / shapesOf(sizes['3b']).text.layers }
}

const dir = ownFolder(options.dir)
const folders = Object.fromEntries(Object.keys(peers).map((peer) => [peer, install(dir, peer)]))
const report = {
  command: `node bench/peers.mjs ${process.argv.slice(2).join(' ')}`.trim(),
  date: new Date().toISOString(),
  size,
  prefill,
  tokens,
  rounds,
  machine: { cpu: cpus()[0]?.model.trim(), cores: availableParallelism(), node: process.version, load: [loadavg()[0]] },
  versions: Object.assign({}, ...Object.values(peers).map(({ packages }) => packages)),
  limits: [],
  rows: [],
  leftOut: []
}

for (const threads of options.threads) {
  const measured = []
  const between = async () => measured.push(await limits.measureLimits(threads))
  const results = []
  for (const name of options.only) {
    const { folder, why } = folders[name.startsWith('llama') ? 'llama' : 'onnxruntime']
    if (!folder) {
      report.leftOut.push({ name, why })
      continue
    }
    try {
      say(`${name}, ${threads} threads`)
      const pair = await prepare(name, { size, dir, folder, common: { threads, prefill, tokens } })
      const result = await inTurns(pair, between)
      say(JSON.stringify(result.runs))
      report.machine.isa ??= result.isa
      results.push({ pair, ...result })
    } catch (error) {
      say(error.message)
      report.leftOut.push({ name, why: error.message.split('\n')[0] })
    }
  }
  const limit = { threads }
  for (const key of ['readGBps', 'int8Gops'])
    limit[key] = Number(median(measured.map((one) => one[key])).toPrecision(4))
  report.limits.push(limit)
  for (const { pair, runs, loadMs } of results) {
    for (const part of Object.keys(runs[0][0])) {
      const [ours, theirs] = runs.map((list) => list.map((run) => run[part]))
      const names = [pair.ours.name, pair.theirs.name]
      const share = await shareOf(part, pair.ours.path, limit)
      if (part === 'prefill') report.prefillWork ??= await prefillWork(pair.ours.path)
      report.rows.push({ ...compared({ part, threads, names, ours, theirs, share }), loadMs })
    }
  }
}
report.machine.load.push(loadavg()[0])
if (options.json) writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`)
process.stdout.write(markdown(report))
if (report.leftOut.length > 0) process.exitCode = 1
