// Late interaction in pages a second: node bench/max-sim.mjs (after npm run build). PALIGEMMA_ISA forces an instruction
// set.
import { createRequire } from 'node:module'

const { maxSim, PageIndex, poolTokens, quantizeVectors } = createRequire(import.meta.url)('../dist/index.js')
const [queryTokens, pageTokens, dims, pages, copies, rounds] = [20, 1030, 128, 200, 10, 5]

/** Random vectors of length 1. */
function vectors(tokens) {
  const data = Float32Array.from({ length: tokens * dims }, () => Math.random() + Math.random() + Math.random() - 1.5)
  for (let t = 0; t < tokens; t++) {
    const row = data.subarray(t * dims, (t + 1) * dims)
    const length = Math.hypot(...row)
    row.forEach((x, i) => {
      row[i] = x / length
    })
  }
  return { data, tokens, dims }
}

/** The definition, in plain JavaScript. */
function plain(query, page) {
  let sum = 0
  for (let q = 0; q < query.tokens * dims; q += dims) {
    let best = -Infinity
    for (let p = 0; p < page.tokens * dims; p += dims) {
      let dot = 0
      for (let i = 0; i < dims; i++) dot += query.data[q + i] * page.data[p + i]
      if (dot > best) best = dot
    }
    sum += best
  }
  return sum
}

/** The best of some rounds, after one to warm up. */
async function report(name, count, run) {
  await run()
  let best = Infinity
  for (let i = 0; i < rounds; i++) {
    const start = performance.now()
    await run()
    best = Math.min(best, performance.now() - start)
  }
  console.log(
    `${name.padEnd(32)} ${Math.round((count / best) * 1000)
      .toLocaleString('en')
      .padStart(9)} pages/s`
  )
}

const query = vectors(queryTokens)
const list = Array.from({ length: pages }, () => vectors(pageTokens))
console.log(`${queryTokens} query tokens, pages of ${pageTokens} x ${dims}`)
await report('JavaScript', 5, () => list.slice(0, 5).map((page) => plain(query, page)))
for (const type of ['f32', 'int8', 'binary']) {
  const stored = type === 'f32' ? list : list.map((page) => quantizeVectors(page, type))
  await report(`maxSim ${type}`, pages, () => maxSim(query, stored))
  for (const threads of [1, undefined]) {
    const index = new PageIndex({ type, ...(threads && { threads }) })
    for (let i = 0; i < copies; i++) for (const page of stored) index.add(page)
    await report(`PageIndex ${type}, ${threads ? '1 thread' : 'all cores'}`, index.size, () => index.search(query))
    index.clear()
  }
}
await report('poolTokens, factor 3', 1, () => poolTokens(list[0]))
