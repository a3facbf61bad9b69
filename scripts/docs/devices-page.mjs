// docs/devices.md: how fast which machine is. Measured rows are figures of `paligemma bench` that the lab book has;
// computed ones are arithmetic over the shapes of the published models and makers' figures.
// Test: test/docs/generated.test.ts.

/** Columns: a published size and a type, as for `paligemma bench --synthetic`. */
const models = [
  ['3b-224', 'Q4_0'],
  ['3b-224', 'Q4_K_M'],
  ['3b-224', 'Q8_0'],
  ['3b-448', 'Q4_K_M'],
  ['3b-896', 'Q4_K_M'],
  ['10b-448', 'Q4_K_M'],
  ['28b-448', 'Q4_K_M']
]

/** Of makers' figures: what the engine made of the 8-bit peak where it was measured is 37 to 71 %. */
export const computeShare = 0.5
/** What all cores read of a memory's nominal rate, assumed; times what decoding gets of it, measured 73 to 96 %. */
export const readShare = 0.7 * 0.85

// Operations a cycle and core of the 8-bit instruction: a multiply-add is two.
const dotprod = 64 // two SDOT of 16 products
const vnni256 = 64 // one VPDPBUSD of 32 products
const [i8mm, wideVnni] = [128, 128] // two SMMLA, or two VPDPBUSD, or one of 64 products

/** [name, cores, GHz with all of them busy, operations a cycle, GB/s of the memory, GB of memory, what it is] */
const machines = [
  ['Raspberry Pi 5', 4, 2.4, dotprod, 17.1, 8, 'Cortex-A76, dot products; LPDDR4X-4267, 32 bits; 8 GB'],
  ['Intel N100', 4, 2.9, vnni256, 38.4, 16, 'AVX-VNNI; one channel of DDR5-4800; 16 GB'],
  ['Graviton 3, 8 vCPUs', 8, 2.6, i8mm, 307 / 8, 32, "i8mm; an eighth of the socket's 307 GB/s; 32 GB (m7g.2xlarge)"],
  ['Graviton 3, 16 vCPUs', 16, 2.6, i8mm, 307 / 4, 64, 'a quarter of the socket; 64 GB (m7g.4xlarge)'],
  ['Apple M2', 4, 3.3, i8mm, 100, 16, 'the four performance cores, i8mm; LPDDR5-6400, 128 bits; 16 GB'],
  ['Ryzen 7 7840U', 8, 4.0, wideVnni, 102, 32, 'Zen 4, AVX-512 VNNI; LPDDR5-6400, 128 bits; 32 GB']
]

const zen5 = '2 Zen 5 cores, AVX-512 VNNI'
/** Of docs/lab-book.md, "Whole model": ms of the picture, tokens of prefill and their rate, tokens/s, the limits. */
const measured = [
  [zen5, '3b-224', 'Q4_0', 215, 260, 262, 27.4, 1832, 47.3],
  [zen5, '3b-224', 'Q4_K_M', 229, 260, 268, 21.8, 1859, 45.3],
  [zen5, '3b-224', 'Q8_0', 213, 260, 262, 14.5, 1821, 55.9],
  [zen5, '3b-448', 'Q4_0', 1165, 1028, 231, 19.0, 1846, 41.2],
  [zen5, '3b-896', 'Q4_0', 7900, 4100, 175, 20.2, 1905, 43.3],
  ['the same, AVX-VNNI alone', '3b-224', 'Q4_0', 383, 260, 142, 21.6, 942, 42.1],
  ['the same, AVX2 alone, with kernels of before 0.2.0', '3b-224', 'Q4_0', 856, 260, 71, 20.8, 409, 36.9]
]

const two = (value) => (value >= 100 ? Math.round(value).toString() : value.toPrecision(2))
const imageTokens = (size) => (Number(size.split('-').at(-1)) / 14) ** 2
/** The picture's tokens, begin, two of the prompt and the newline, as `paligemma bench` takes them. */
const prompt = (size) => imageTokens(size) + 4

/** Seconds to the first token and tokens/s from limits in GOPS and GB/s, of which these shares are had. */
export function speedOf(costs, tokens, { gops, gBps }, compute = computeShare, read = readShare) {
  return {
    firstToken: (costs.visionOps + costs.prefillOps(tokens)) / (compute * gops * 1e9),
    rate: (read * gBps * 1e9) / costs.decodeBytes(tokens)
  }
}

const row = (cells) => `| ${cells.join(' | ')} |`
const rule = (cells) => row(cells.map(() => '---'))

async function computedTable({ costs, memory }) {
  const head = ['', ...models.map(([size, type]) => `${size} ${type}`)]
  const bytes = await Promise.all(models.map(([size, type]) => memory(size, type)))
  const lines = [row(head), rule(head), row(['memory', ...bytes.map((total) => `${(total / 1e9).toFixed(1)} GB`)])]
  for (const [name, cores, ghz, perCycle, gBps, gigabytes] of machines) {
    const cells = models.map(([size, type], i) => {
      // The system and Node want some, too.
      if (bytes[i] > 0.85 * gigabytes * 1e9) return 'does not fit'
      const limits = { gops: cores * ghz * perCycle, gBps }
      const { firstToken, rate } = speedOf(costs(size, type), prompt(size), limits)
      return `${two(firstToken)} s, ${two(rate)}/s`
    })
    lines.push(row([name, ...cells]))
  }
  return lines.join('\n')
}

function measuredTable({ costs }) {
  const head = ['', 'model', 'first token', 'tokens/s', 'from these limits the arithmetic says']
  const lines = measured.map(([name, size, type, visionMs, tokens, perSecond, rate, gops, gBps]) => {
    // Its reads are measured, not nominal.
    const said = speedOf(costs(size, type), tokens, { gops, gBps }, computeShare, 0.85)
    return row([
      name,
      `${size} ${type}`,
      `${two(visionMs / 1000 + tokens / perSecond)} s`,
      two(rate),
      `${two(said.firstToken)} s, ${two(said.rate)}/s`
    ])
  })
  return [row(head), rule(head), ...lines].join('\n')
}

function describe([name, cores, ghz, perCycle, gBps, , what]) {
  const gops = Math.round(cores * ghz * perCycle)
  return row([name, `${cores} cores at ${ghz} GHz: ${gops} GOPS; ${Math.round(gBps)} GB/s; ${what}`])
}

/** `costs(size, type)`: { visionOps, prefillOps, decodeBytes }; `memory(size, type)`: bytes with one request. */
export async function devicesPage(of) {
  const work = of.costs('3b-224', 'Q4_0')
  const giga = (value) => Math.round(value / 1e9)
  const percent = (share) => `${Math.round(share * 100)} %`
  const bytes = (work.decodeBytes(260) / 1e9).toFixed(2)
  return `# How fast on which machine

Two numbers of a machine decide: what its cores multiply in 8 bits (the time to the first token) and what its memory
delivers (the tokens after it). [Speed](performance.md) says why, and what to choose;
\`npx paligemma bench --synthetic 3b-224 --type Q4_0\` measures yours, limits and all, without a download. Made by
\`npm run docs\`; the arithmetic is in \`scripts/docs/devices-page.mjs\`.

## Measured

\`paligemma bench --synthetic SIZE --type TYPE\`, two threads, November 2026 ([lab book](lab-book.md#whole-model));
in the last column what the rules below make of the limits that the same run measured, so that you see how far they
can be trusted:

${measuredTable(of)}

## Computed

Nobody has run these rows. First token of a picture and a short prompt, then tokens a second; memory as
\`estimateMemory\` says for one request:

${await computedTable(of)}

| machine | cores and memory |
|---|---|
${machines.map(describe).join('\n')}

- **First token**: operations of the picture and the prompt, ${giga(work.visionOps)} and ${giga(work.prefillOps(260))}
  billion for 3B at 224 px, over ${percent(computeShare)} of cores x GHz x 8-bit operations a cycle. Measured were 37 to
  71 %.
- **Tokens/s**: ${percent(readShare)} of the memory's nominal rate over what a token reads, ${bytes} GB for 3B as Q4_0:
  cores are assumed to get 70 % of what the maker names, and decoding 85 % of that; measured were 73 to 96 %.
- A machine that throttles, or shares its memory with others, is slower; one with faster memory than named here is
  faster.
- PaliGemma 1 3B takes about the time of PaliGemma 2 3B. With AVX2 alone the first token takes about four times as long
  as with AVX-512 VNNI at the same clock; tokens/s follow the memory as everywhere.
`
}

/** What the page needs, from the package's own modules: `modules(path)` gives lib/PATH. */
export async function sourcesOf(modules) {
  const [{ costsOf }, { estimateMemory }, { parseSize }, types, writer] = await Promise.all(
    ['measure/costs', 'measure/estimate', 'measure/sizes', 'formats/types', 'formats/gguf-writer'].map(modules)
  )
  const [{ expectedTensors }, { structureMetadata }, { planConversion }] = await Promise.all(
    ['names', 'metadata', 'plan'].map((name) => modules(`convert/checkpoint/${name}`))
  )
  const costs = (size, type) => {
    const { config } = parseSize(size)
    const source = expectedTensors(config, 257216).map(({ source: name, shape }) => ({ name, type: 'F32', shape }))
    const plan = planConversion(config, source, { dir: size, type: types.parseFileType(type) })
    return costsOf([
      {
        architecture: config.text.architecture,
        metadata: structureMetadata(config, plan).map(([key, { value }]) => ({ key, value })),
        tensors: plan.tensors.map((tensor) => ({ ...tensor, bytes: writer.tensorBytes(tensor) }))
      }
    ])
  }
  const memory = async (size, type) => (await estimateMemory(size, { type, maxSequences: 1 })).total
  return { costs, memory }
}
