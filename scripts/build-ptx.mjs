// npm run build:ptx: our CUDA kernels to PTX, in prebuilds/cuda/kernels.br, which is not committed and travels in the
// package, once for the engines of all platforms. Two sets: compute capability 7.5, and 8.0 and newer.
//   node scripts/build-ptx.mjs [--check] [--fast] [--text FILE]
//     --check: ptxas must take them for every generation of cards
//     --fast: packed in a second instead of a minute, half as large again
//     --text: what gpu/cuda/ptx.h reads goes to FILE, too, not packed
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { brotliCompressSync, constants } from 'node:zlib'
import { kernelIngredients, sourceCommit, writeRecord } from './prebuild/record.mjs'

const root = join(fileURLToPath(import.meta.url), '..', '..')
const sources = join(root, 'native', 'gpu', 'kernels')
export const ptxOutput = join(root, 'prebuilds', 'cuda', 'kernels.br')

/** What each set must assemble for. */
const cards = { 75: ['sm_75'], 80: ['sm_80', 'sm_86', 'sm_89', 'sm_90', 'sm_100', 'sm_120'] }
// nvcc writes its own version, which older drivers refuse; our kernels need no more than CUDA 11.0's.
const version = '7.0'
const mostBytes = 0.7e6

/** nvcc or ptxas, from CUDA_HOME or the path; undefined where there is none. */
export function cudaTool(name) {
  const home = process.env.CUDA_HOME ?? process.env.CUDA_PATH
  const path = home ? join(home, 'bin', name) : name
  return spawnSync(path, ['--version'], { stdio: 'ignore' }).status === 0 ? path : undefined
}

async function run(command, args) {
  const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', 'pipe'] })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += data))
  const code = await new Promise((resolve) => child.on('close', resolve))
  if (code !== 0) throw new Error(`${basename(command)} ${args.join(' ')}\n${output}`)
}

/** Some at a time, in their order. */
async function all(items, work) {
  const results = []
  const left = [...items.entries()]
  const worker = async () => {
    for (let next = left.shift(); next; next = left.shift()) results[next[0]] = await work(next[1])
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))
  return results
}

/** What newer versions of PTX let nvcc say about loads, and older assemblers refuse; nothing depends on it. */
export const isNewerHint = (line) => /^\s*\.pragma "used_bytes_mask \w+";$/.test(line)

async function compile(folder, { name, capability, nvcc, ptxas }) {
  const file = join(folder, `${name}-${capability}.ptx`)
  const source = join(sources, `${name}.cu`)
  await run(nvcc, ['-ptx', `-arch=compute_${capability}`, '-std=c++20', '-O3', '-I', 'native', '-o', file, source])
  const lines = readFileSync(file, 'utf8').split('\n')
  const text = lines
    .filter((line) => line.trim() && !line.startsWith('//') && !isNewerHint(line))
    .join('\n')
    .replace(/^\.version .*$/m, `.version ${version}`)
  writeFileSync(file, text)
  // the oldest card of a set sees each kernel by itself, below
  for (const card of ptxas ? cards[capability].slice(1) : [])
    await run(ptxas, [`-arch=${card}`, '-o', `${file}.bin`, file])
  return { name, capability, text }
}

/** A file's kernels, each with the declarations that it names, as a module of its own. */
function kernelsOf({ text, capability }) {
  const items = []
  let item = ''
  let depth = 0
  for (const line of text.split('\n')) {
    item += `${line}\n`
    depth += line.split('{').length - line.split('}').length
    if (depth === 0 && /^\.(version|target|address_size)|[;}]$/.test(line.trimEnd())) {
      items.push(item)
      item = ''
    }
  }
  const entryName = (part) => /\.entry (\w+)/.exec(part)?.[1]
  const isHead = (part) => /^\.(version|target|address_size)/.test(part)
  const declared = (part) => /([\w$]+)(?:\[[^\]]*\])*\s*(?:=|;)/.exec(part)?.[1]
  return items.filter(entryName).map((entry) => {
    const names = new Set(entry.match(/[\w$]+/g))
    const rest = items.filter((part) => !entryName(part) && (isHead(part) || names.has(declared(part) ?? '')))
    return { name: entryName(entry), capability, text: [...rest, entry].join('') }
  })
}

/** Without kernels that are the same for older cards. */
function eachOnce(kernels) {
  const body = ({ text }) => text.replace(/^\.target .*$/m, '')
  const older = new Map(kernels.filter(({ capability }) => capability === '75').map((one) => [one.name, body(one)]))
  return kernels.filter((one) => one.capability === '75' || older.get(one.name) !== body(one))
}

/** As gpu/cuda/ptx.h reads them. */
const fileOf = (kernels) =>
  Buffer.from(kernels.map(({ name, capability, text }) => `${name} ${capability} ${text.length}\n${text}\0`).join(''))

/** Much of what one kernel says another says, too, megabytes away: half of what each would take by itself. */
function packed(file, quality) {
  const params = {
    [constants.BROTLI_PARAM_QUALITY]: quality,
    [constants.BROTLI_PARAM_LGWIN]: constants.BROTLI_MAX_WINDOW_BITS,
    [constants.BROTLI_PARAM_SIZE_HINT]: file.length
  }
  return brotliCompressSync(file, { params })
}

function write(file, quality, commit) {
  const bytes = packed(file, quality)
  if (bytes.length > mostBytes && quality === constants.BROTLI_MAX_QUALITY)
    throw new Error(`The kernels are ${bytes.length} bytes, more than ${mostBytes}`)
  mkdirSync(dirname(ptxOutput), { recursive: true })
  writeFileSync(ptxOutput, bytes)
  writeRecord(ptxOutput, 'nvcc', commit, kernelIngredients)
  return bytes.length
}

export async function buildPtx({ check = false, fast = false, text: textFile } = {}) {
  const nvcc = cudaTool('nvcc')
  const ptxas = check ? cudaTool('ptxas') : undefined
  if (!nvcc || (check && !ptxas))
    throw new Error('nvcc and ptxas were not found: install the CUDA toolkit, or set CUDA_HOME')
  const commit = sourceCommit(kernelIngredients)
  const names = readdirSync(sources)
    .filter((name) => name.endsWith('.cu'))
    .map((name) => basename(name, '.cu'))
  const folder = mkdtempSync(join(tmpdir(), 'paligemma-ptx-'))
  try {
    const jobs = names.flatMap((name) => Object.keys(cards).map((capability) => ({ name, capability, nvcc, ptxas })))
    const files = await all(jobs, (job) => compile(folder, job))
    const kernels = eachOnce(files.flatMap(kernelsOf))
    for (const { name, capability, text } of ptxas ? kernels : []) {
      const file = join(folder, `one-${name}.ptx`)
      writeFileSync(file, text)
      await run(ptxas, [`-arch=${cards[capability][0]}`, '-o', join(folder, 'one.cubin'), file])
    }
    const file = fileOf(kernels)
    if (textFile) writeFileSync(textFile, file)
    return { kernels: kernels.length, bytes: write(file, fast ? 5 : constants.BROTLI_MAX_QUALITY, commit) }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    const { values } = parseArgs({
      options: { check: { type: 'boolean' }, fast: { type: 'boolean' }, text: { type: 'string' } }
    })
    const { kernels, bytes } = await buildPtx(values)
    console.log(`${kernels} kernels, ${Math.round(bytes / 1000)} kB of PTX`)
  } catch (error) {
    console.error(error.message)
    process.exit(1)
  }
}
