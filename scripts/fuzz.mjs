// npm run fuzz: libFuzzer with ASan and UBSan over native/fuzz, with clang. The exit code is 1 where it found anything.
//   node scripts/fuzz.mjs [--minutes N] [--target T]...
//   node scripts/fuzz.mjs --coverage [--target T]...      lines of each parser that the inputs known so far reach;
//                                                         85 % of each target's own are required
// A target first runs what native/fuzz/corpus and native/fuzz/regressions hold of it, then so many minutes (default 1)
// from there. What it learns is kept in build/fuzz/corpus, what breaks it is written to build/fuzz/found: after the fix
// it goes to native/fuzz/regressions/TARGET.
import { spawn, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { reportCoverage } from './fuzz/coverage.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const build = join(root, 'build', 'fuzz')
const sources = join(root, 'native', 'fuzz')
const all = readdirSync(sources)
  .filter((name) => name.endsWith('.cpp'))
  .map((name) => name.slice(0, -4))

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '1' },
    target: { type: 'string', multiple: true },
    coverage: { type: 'boolean', default: false }
  }
})
const seconds = Math.round(Number(values.minutes) * 60)
const targets = values.target ?? all
const unknown = targets.filter((name) => !all.includes(name))
if (!(seconds >= 0) || unknown.length) {
  console.error(`Expected --minutes N and --target among ${all.join(', ')}`)
  process.exit(2)
}

function run(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'ignore', 'inherit'] })
  if (error) console.error(`${command}: ${error.message}`)
  if (status !== 0) process.exit(1)
}

const compiler = ['clang++-19', 'clang++'].find((name) => spawnSync(name, ['--version']).status === 0)
if (!compiler) {
  console.error('Fuzzing needs clang (Debian: apt-get install clang-19 libclang-rt-19-dev)')
  process.exit(1)
}
const ninja = spawnSync('ninja', ['--version']).status === 0 ? ['-G', 'Ninja'] : []

/** The targets in `folder`, instrumented by `flags` of CMake. */
function make(folder, flags) {
  run('cmake', [
    ...['-S', root, '-B', folder, `-DCMAKE_CXX_COMPILER=${compiler}`, '-DCMAKE_BUILD_TYPE=Fuzz', ...ninja],
    ...['-DPALIGEMMA_ADDON=OFF', '-DPALIGEMMA_FUZZ=ON', ...flags]
  ])
  const wanted = targets.flatMap((name) => ['--target', `fuzz_${name}`])
  run('cmake', ['--build', folder, '--parallel', String(availableParallelism()), ...wanted])
}

/** The corpora of a target that there are: its own to write to first, then ours, then golden files. */
function corpora(name) {
  const own = join(build, 'corpus', name)
  mkdirSync(own, { recursive: true })
  const given = [join(sources, 'corpus', name), join(sources, 'regressions', name)]
  if (name === 'gguf') {
    const golden = join(root, 'test', 'fixtures', 'golden', 'gguf')
    given.push(golden, join(golden, 'bad'))
  }
  return [own, ...given.filter((folder) => existsSync(folder))]
}

// Up to four times as many executions: short traces of allocations, and less memory kept from being used again.
const quick = 'malloc_context_size=4:quarantine_size_mb=16:detect_stack_use_after_return=0'
// Most targets write a file for each input: in memory fifteen times as many a second as on a disk.
const inMemory = existsSync('/dev/shm') ? { TMPDIR: '/dev/shm' } : {}

function fuzz(name) {
  const found = join(build, 'found', name)
  mkdirSync(found, { recursive: true })
  const dictionary = join(sources, `${name}.dict`)
  const args = [
    ...(seconds > 0 ? [`-max_total_time=${seconds}`] : ['-runs=0']),
    ...['-timeout=10', '-rss_limit_mb=2048', '-print_final_stats=1', `-artifact_prefix=${found}/`],
    ...(existsSync(dictionary) ? [`-dict=${dictionary}`] : []),
    ...corpora(name)
  ]
  const env = { ASAN_OPTIONS: quick, ...inMemory, ...process.env }
  const child = spawn(join(build, `fuzz_${name}`), args, { cwd: build, env, stdio: ['ignore', 'ignore', 'pipe'] })
  let log = ''
  child.stderr.setEncoding('utf8').on('data', (text) => (log = (log + text).slice(-100_000)))
  return new Promise((resolve) => {
    child.on('close', (code) => {
      const executed = /number_of_executed_units:\s*(\d+)/.exec(log)?.[1] ?? '?'
      const covered = [...log.matchAll(/cov: (\d+)/g)].at(-1)?.[1] ?? '?'
      console.log(`${code === 0 ? 'ok    ' : 'FAILED'} ${name}: ${executed} executions, ${covered} edges`)
      if (code !== 0) console.log(log.slice(-6000))
      resolve(code === 0)
    })
  })
}

async function fuzzAll() {
  make(build, ['-DCMAKE_CXX_FLAGS_FUZZ=-O1 -g1', '-DPALIGEMMA_SANITIZE=fuzzer-no-link,address,undefined'])
  let failed = 0
  const waiting = [...targets]
  const worker = async () => {
    for (let name = waiting.shift(); name !== undefined; name = waiting.shift()) if (!(await fuzz(name))) failed++
  }
  await Promise.all(Array.from({ length: Math.min(availableParallelism(), targets.length) }, worker))
  console.log(`${targets.length - failed} passed, ${failed} failed`)
  return failed === 0
}

function cover() {
  const folder = `${build}-coverage`
  make(folder, ['-DCMAKE_CXX_FLAGS_FUZZ=-O1 -fprofile-instr-generate -fcoverage-mapping'])
  return reportCoverage(targets.map((name) => ({ name, program: join(folder, `fuzz_${name}`), inputs: corpora(name) })))
}

const well = values.coverage ? cover() : await fuzzAll()
process.exitCode = well ? 0 : 1
