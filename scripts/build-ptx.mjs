// npm run build:ptx: our CUDA kernels to PTX, packed, in native/gpu/cuda/generated/ptx.inc, which is not committed and
// travels in the package: who builds from it needs no nvcc. Two sets: compute capability 7.5, and 8.0 and newer.
//   node scripts/build-ptx.mjs [--check]     --check: ptxas must take them for every generation of cards
import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { deflateRawSync } from 'node:zlib'

const root = join(fileURLToPath(import.meta.url), '..', '..')
const sources = join(root, 'native', 'gpu', 'kernels')
const output = join(root, 'native', 'gpu', 'cuda', 'generated')
export const ptxOutput = join(output, 'ptx.inc')

/** What each set must assemble for. */
const cards = { 75: ['sm_75'], 80: ['sm_80', 'sm_86', 'sm_89', 'sm_90', 'sm_100', 'sm_120'] }
// nvcc writes its own version, which older drivers refuse; our kernels need no more than CUDA 11.0's.
const version = '7.0'
const mostBytes = 1.5e6
// compilers limit how long a string may be
const partLength = 3000

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

/** Registers counted back from the latest of their kind, as ptx.h has it: repeated code becomes repeated text. */
export function countedBack(text) {
  const latest = {}
  return text.replace(/(%[a-z]+)(\d+)/g, (_, kind, digits) => {
    const [number, last = 0] = [Number(digits), latest[kind]]
    latest[kind] = Math.max(last, number)
    return `${kind}${last - number}`
  })
}

/** Without kernels that are the same for older cards. */
function eachOnce(kernels) {
  const body = ({ text }) => text.replace(/^\.target .*$/m, '')
  const older = new Map(kernels.filter(({ capability }) => capability === '75').map((one) => [one.name, body(one)]))
  return kernels.filter((one) => one.capability === '75' || older.get(one.name) !== body(one))
}

/** As C++: bytes in octal, in strings as short as compilers want them. */
function generated(kernels) {
  const strings = (bytes) => {
    const codes = Array.from(bytes, (byte) => `\\${byte.toString(8).padStart(3, '0')}`)
    const lines = []
    for (let at = 0; at < codes.length; at += partLength) lines.push(`"${codes.slice(at, at + partLength).join('')}"`)
    return lines.join('\n')
  }
  const rows = kernels.map(
    ({ name, capability, bytes, packed }) =>
      `  {"${name}", ${capability}, ${bytes}, {${strings(packed)}, ${packed.length}}},\n`
  )
  return `// Made by scripts/build-ptx.mjs\nconstexpr PtxKernel kPtxKernels[] = {\n${rows.join('')}};\n`
}

export async function buildPtx({ check = false } = {}) {
  const nvcc = cudaTool('nvcc')
  const ptxas = check ? cudaTool('ptxas') : undefined
  if (!nvcc || (check && !ptxas))
    throw new Error('nvcc and ptxas were not found: install the CUDA toolkit, or set CUDA_HOME')
  const names = readdirSync(sources)
    .filter((name) => name.endsWith('.cu'))
    .map((name) => basename(name, '.cu'))
  const folder = mkdtempSync(join(tmpdir(), 'paligemma-ptx-'))
  try {
    const jobs = names.flatMap((name) => Object.keys(cards).map((capability) => ({ name, capability, nvcc, ptxas })))
    const files = await all(jobs, (job) => compile(folder, job))
    const kernels = eachOnce(files.flatMap(kernelsOf)).map((kernel) => {
      const text = countedBack(kernel.text)
      return { ...kernel, bytes: text.length, packed: deflateRawSync(text, { level: 9 }) }
    })
    const bytes = kernels.reduce((sum, { packed }) => sum + packed.length, 0)
    if (bytes > mostBytes) throw new Error(`The kernels are ${bytes} bytes, more than ${mostBytes}`)
    for (const { name, capability, text } of ptxas ? kernels : []) {
      const file = join(folder, `one-${name}.ptx`)
      writeFileSync(file, text)
      await run(ptxas, [`-arch=${cards[capability][0]}`, '-o', join(folder, 'one.cubin'), file])
    }
    mkdirSync(output, { recursive: true })
    writeFileSync(ptxOutput, generated(kernels))
    return { kernels: kernels.length, bytes }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    const { kernels, bytes } = await buildPtx({ check: process.argv.includes('--check') })
    console.log(`${kernels} kernels, ${Math.round(bytes / 1000)} kB of packed PTX`)
  } catch (error) {
    console.error(error.message)
    process.exit(1)
  }
}
