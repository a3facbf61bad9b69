// npm run soak: mixed requests on the demo model for a while. Memory, handles and threads must stay flat, a probe must
// give the same bits all along, and every failure must be one that was asked for. Exit code 1 where not.
//   node --expose-gc scripts/soak.mjs [--minutes N | --requests N] [--seed N] [--workers N]
// Ctrl-C ends it early, with a verdict.
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { demoImage, loadModel } from '../dist/index.js'
import { Dice, makePictures, request, writeAdapter } from './soak/requests.mjs'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string' },
    requests: { type: 'string' },
    seed: { type: 'string', default: '1' },
    workers: { type: 'string', default: '6' }
  }
})
const most = Number(values.requests ?? Infinity)
const minutes = Number(values.minutes ?? (values.requests ? Infinity : 10))
const workers = Number(values.workers)
if (!(minutes > 0) || !(most > 0) || !(workers >= 1)) {
  console.error('Expected --minutes and --requests above 0 and --workers of at least 1')
  process.exit(2)
}

const sampleMs = 2000
const hangMs = 120_000
const folder = mkdtempSync(join(tmpdir(), 'paligemma-soak-'))
const problems = []
const counts = { requests: 0, results: 0, asked: 0 }

/** What a process holds: bytes, open files, threads. Linux says the latter two; elsewhere Node's own handles count. */
function holdings() {
  globalThis.gc?.()
  const { rss } = process.memoryUsage()
  const handles = process.getActiveResourcesInfo().filter((name) => name !== 'Timeout' && name !== 'Immediate').length
  try {
    const threads = Number(/^Threads:\s+(\d+)/m.exec(readFileSync('/proc/self/status', 'latin1'))[1])
    return { rss, handles, files: readdirSync('/proc/self/fd').length, threads }
  } catch {
    return { rss, handles, files: 0, threads: 0 }
  }
}

const adapter = await writeAdapter(join(folder, 'adapter.gguf'))
const pictures = await makePictures(folder)
const model = await loadModel({ model: 'demo', threads: 2, maxSequences: 4, adapters: [{ path: adapter, scale: 1 }] })

const probe = async () => {
  const asked = { image: demoImage, prompt: 'detect star ; circle', maxTokens: 24, logProbs: 2, adapters: [] }
  const { text, tokens } = await model.generate(asked)
  return JSON.stringify([text, tokens])
}

const start = Date.now()
let stopped = false
process.once('SIGINT', () => (stopped = true)) // what there is by then is judged all the same
const goesOn = () => !stopped && Date.now() < start + minutes * 60_000 && counts.requests < most && problems.length < 20
async function work(dice) {
  while (goesOn()) {
    counts.requests++
    const { what, expected, run } = request(model, pictures, dice)
    let timer
    const hang = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Error(`no end after ${hangMs} ms`)), hangMs)
    })
    try {
      await Promise.race([run(), hang])
      counts.results++
    } catch (error) {
      if (expected.includes(error?.code ?? error?.message)) counts.asked++
      else problems.push(`${what}: ${error?.code ?? ''} ${error?.stack ?? error}`)
    } finally {
      clearTimeout(timer)
    }
  }
}

const first = await probe()
const samples = []
async function watch() {
  for (let next = Date.now(); goesOn(); next += sampleMs) {
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, next - Date.now())))
    if ((await probe()) !== first) problems.push(`the probe gave other bits after ${counts.requests} requests`)
    samples.push({ requests: counts.requests, ...holdings() })
    if (samples.length % 15 === 1) {
      const { rss, handles, files, threads } = samples.at(-1)
      const held = `${handles} handles, ${files} files, ${threads} threads`
      console.log(`${counts.requests} requests: ${(rss / 1e6).toFixed(0)} MB, ${held}`)
    }
  }
}
const seed = Number(values.seed)
await Promise.all([watch(), ...Array.from({ length: workers }, (_, i) => work(new Dice(seed * 1000 + i)))])

const took = ((Date.now() - start) / 60_000).toFixed(1)

const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)]
// Behind the warm-up: 1,000 requests, or half of a short run.
const judged = samples.filter(({ requests }) => requests >= Math.min(1000, counts.requests / 2))
/** Of the first and the last third. */
const thirds = (name) => {
  const of = (from, to) => median(judged.slice(judged.length * from, judged.length * to).map((s) => s[name]))
  return [of(0, 1 / 3), of(2 / 3, 1)]
}
// Pictures on their way and the allocator's pages come and go; a leak of 1 kB a request shows in 10,000 requests.
const noise = 8e6
if (judged.length >= 12) {
  const [before, after] = thirds('rss')
  if (after > before * 1.02 + noise) problems.push(`memory grew from ${before} to ${after} bytes`)
  for (const name of ['handles', 'files', 'threads']) {
    const [low, high] = thirds(name)
    if (high > low + 2) problems.push(`${name} grew from ${low} to ${high}`)
  }
} else console.log('Too short to judge memory')
await model.dispose()
rmSync(folder, { recursive: true, force: true })

const [before, after] = thirds('rss').map((bytes) => `${(bytes / 1e6).toFixed(1)} MB`)
console.log(
  `${counts.requests} requests in ${took} minutes: ${counts.results} results, ${counts.asked} failures that were ` +
    `asked for, ${samples.length} probes of the same bits; memory ${before}, at the end ${after}`
)
for (const problem of problems) console.log(`FAILED ${problem}`)
process.exitCode = problems.length ? 1 : 0
