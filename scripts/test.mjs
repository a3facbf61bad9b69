// npm test and its relatives: builds what changed, runs suites, prints the slowest files and one line that sums all up.
// The exit code is 1 when anything failed.
//   node scripts/test.mjs            `npm test`: C++ tests, symbols, vitest (units, addon, package)
//   node scripts/test.mjs quick      units, and the reference results on the best kernel table: under a minute
//   node scripts/test.mjs sanitize   C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer
//   node scripts/test.mjs long       kills, browsers, Redis, trained models: what waits or computes for long
//   node scripts/test.mjs tables     the reference results on every other kernel table of this machine
//   node scripts/test.mjs arm        C++ tests of kernels and ops on every NEON table, under qemu: minutes
//   node scripts/test.mjs gpu        the reference results on emulated GPUs: half an hour and more
//   node scripts/test.mjs gpu-quick  some of them, and all else that GPUs must do: minutes
//   node scripts/test.mjs frameworks package managers, bundlers and frameworks of the registry: minutes
//   node scripts/test.mjs tsan       C++ tests of what runs on several threads, under ThreadSanitizer
// More words run more suites: cpp, symbols, vitest, quick, sanitize, long, tables, tsan, arm, gpu, gpu-quick,
// frameworks.
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { cudaTool, ptxOutput } from './build-ptx.mjs'
import { kernelIngredients, mismatch, sourceCommit } from './prebuild/record.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const goldens = process.env.PALIGEMMA_SHARED || join(root, '..', 'shared')
const env = { ...process.env, PALIGEMMA_SHARED: goldens }
const total = { passed: 0, failed: 0, skipped: 0 }

function run(command, args, options = {}) {
  const result = spawnSync(command, args, { cwd: root, stdio: 'inherit', env, ...options })
  if (result.error) console.error(`${command}: ${result.error.message}`)
  return result
}

function count(suite, { passed = 0, failed = 0, skipped = 0 }) {
  console.log(`--- ${suite}: ${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ''}`)
  total.passed += passed
  total.failed += failed
  total.skipped += skipped
}

function node(script, ...args) {
  return run(process.execPath, [join(root, 'scripts', script), ...args]).status === 0
}

/** What runs on several threads: the race detector takes five times as long as the rest. */
const threaded = ['thread', 'engine', 'scheduler', 'page', 'pooling', 'tape', 'fit', 'device']

/** The C++ tests beside the addon, whose objects they share. */
function plainTests() {
  return nativeTests(['-DPALIGEMMA_TESTS=ON'], { name: 'cmake' })
}

function sanitizedTests(name, sanitizers, only, ...more) {
  // -O1: the sanitizers find the same, in a tenth of the time of -O0
  const options = [
    '-DCMAKE_BUILD_TYPE=Sanitize',
    '-DCMAKE_CXX_FLAGS_SANITIZE=-O1 -g1',
    '-DPALIGEMMA_ADDON=OFF',
    '-DPALIGEMMA_TESTS=ON',
    `-DPALIGEMMA_SANITIZE=${sanitizers}`,
    ...more
  ]
  return nativeTests(options, { name, only })
}

/** On `max` every NEON table, on the A53 the plain one, which may hold no newer instruction. */
function runArm() {
  const missing = ['aarch64-linux-gnu-g++', 'qemu-aarch64'].filter((tool) => spawnSync(tool, ['--version']).error)
  if (missing.length) {
    console.log(`No ${missing.join(', no ')} (Debian: apt-get install g++-aarch64-linux-gnu qemu-user)`)
    return count('C++ on NEON', process.env.PALIGEMMA_ALL_TESTS ? { failed: 1 } : { skipped: 1 })
  }
  const options = [
    '-DCMAKE_BUILD_TYPE=Release',
    '-DCMAKE_SYSTEM_NAME=Linux',
    '-DCMAKE_SYSTEM_PROCESSOR=aarch64',
    '-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++',
    '-DPALIGEMMA_ADDON=OFF',
    '-DPALIGEMMA_TESTS=ON'
  ]
  const machines = { max: ['kernels_', 'ops_', 'grad_of', 'grads_of', 'dropout_'], 'cortex-a53': ['kernels_'] }
  for (const [cpu, only] of Object.entries(machines)) {
    const under = ['qemu-aarch64', '-L', '/usr/aarch64-linux-gnu', '-cpu', cpu]
    count(`C++ on NEON, qemu's ${cpu}`, nativeTests(options, { name: 'arm', only, under }))
  }
}

/** `only`: words of the tests' names, files without such a test are not built; `under`: what runs the program. */
function nativeTests(options, { name, only = [], under = [] }) {
  const build = join(root, 'build', name)
  const ninja = !existsSync(join(build, 'CMakeCache.txt')) && spawnSync('ninja', ['--version']).status === 0
  const words = `-DPALIGEMMA_TEST_WORDS=${only.join(';')}`
  const configure = run('cmake', ['-S', root, '-B', build, ...options, words, ...(ninja ? ['-G', 'Ninja'] : [])], {
    stdio: ['ignore', 'ignore', 'inherit']
  })
  if (configure.status !== 0) return { failed: 1 }
  if (run('cmake', ['--build', build, '--parallel', String(availableParallelism())]).status !== 0) return { failed: 1 }
  const [program, ...args] = [...under, join(build, 'native_tests'), ...only]
  const { stdout, status } = run(program, args, {
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8'
  })
  process.stdout.write(stdout ?? '')
  const [, passed, failed, , skipped] = /(\d+) passed, (\d+) failed(, (\d+) skipped)?\s*$/.exec(stdout ?? '') ?? []
  if (passed === undefined) return { failed: 1 } // it crashed
  return {
    passed: Number(passed),
    failed: Math.max(Number(failed), status === 0 ? 0 : 1),
    skipped: Number(skipped ?? 0)
  }
}

// The reference results: on the best kernel table, on an emulated GPU, and, with what the demo model must know, on
// every other table that this machine runs, as users of other processors have them.
const reference = ['api/golden-hf', 'api/segment', 'retrieval/retrieval', 'api/adapters'].map(addonTest)
const everyTable = [...reference, ...['convert/gguf/merge', 'cli/demo'].map(addonTest)]

function addonTest(name) {
  return `test/${name}.addon.test.ts`
}

function otherTables() {
  const { isa, supported } = createRequire(import.meta.url)(join(root, 'build', 'Release', 'paligemma.node')).cpuInfo()
  return supported.filter((name) => name !== isa)
}

function vitest(args, extra = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'paligemma-test-'))
  const report = join(folder, 'report.json')
  try {
    const { status } = run(
      process.execPath,
      [
        join(root, 'node_modules', 'vitest', 'vitest.mjs'),
        'run',
        ...args,
        '--reporter=default',
        '--reporter=json',
        `--outputFile.json=${report}`
      ],
      { env: { ...env, ...extra } }
    )
    if (!existsSync(report)) return { failed: 1 }
    const { numPassedTests, numFailedTests, numPendingTests, numTodoTests, testResults } = JSON.parse(
      readFileSync(report, 'utf8')
    )
    printTimes(testResults)
    // a file that does not even load has no tests to count
    const broken = testResults.filter(
      (file) => file.status === 'failed' && file.assertionResults.every((test) => test.status !== 'failed')
    ).length
    const failed = numFailedTests + broken
    return {
      passed: numPassedTests,
      failed: Math.max(failed, status === 0 ? 0 : 1),
      skipped: numPendingTests + numTodoTests
    }
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Where the time went: the files that took longest. */
function printTimes(results) {
  const seconds = ({ startTime, endTime }) => (endTime - startTime) / 1000
  const slow = results.filter((file) => seconds(file) >= 1).sort((a, b) => seconds(b) - seconds(a))
  if (slow.length) console.log('Files that took a second or more:')
  for (const file of slow) console.log(`  ${seconds(file).toFixed(1).padStart(6)} s  ${relative(root, file.name)}`)
}

function runTables() {
  for (const isa of otherTables()) count(`vitest on ${isa}`, vitest(everyTable, { PALIGEMMA_ISA: isa }))
}

/** The reference results on GPUs that are emulated, and what else GPUs must do. quick: a prefill, scored suffixes. */
function runEmulated(quick = false) {
  if (!node('build.mjs', '--emulated')) return count('the emulated build', { failed: 1 })
  // for the tests of CUDA's driver, whose library is ours here
  const stale = mismatch(ptxOutput, sourceCommit(kernelIngredients)) !== ''
  if (stale && cudaTool('nvcc') && !node('build-ptx.mjs', '--fast')) return count('the CUDA kernels', { failed: 1 })
  const onGpu = { PALIGEMMA_NATIVE: join(root, 'build', 'emulated', 'paligemma.node') }
  count('an emulated GPU', vitest(['--project', 'gpu'], onGpu))
  for (const device of ['cuda-emulated', 'metal-emulated']) {
    const files = quick ? [reference[0], '-t', '(pg1|pg2)-tiny (has|scores)'] : reference
    count(
      `reference results on ${device}`,
      vitest([...files, '--testTimeout=900000'], { ...onGpu, PALIGEMMA_DEVICE: device })
    )
  }
}

const suites = {
  cpp: () => count('C++', plainTests()),
  sanitize: () => count('C++ under sanitizers', sanitizedTests('sanitize', 'address,undefined')),
  // the one build that compiles each source alone, as node-gyp does
  tsan: () => count('C++ under ThreadSanitizer', sanitizedTests('tsan', 'thread', threaded, '-DCMAKE_UNITY_BUILD=OFF')),
  symbols: () =>
    count('symbols', node('check-symbols.mjs', join(root, 'build', 'cmake')) ? { passed: 1 } : { failed: 1 }),
  vitest: () => count('vitest', vitest(['--project', 'unit', '--project', 'addon', '--project', 'package'])),
  quick: () => {
    // one process for many files: what starts and imports costs as much as the tests
    count('units', vitest(['--project', 'unit', '--tags-filter=!slow && !alone', '--no-isolate']))
    count('reference results', vitest(reference))
  },
  long: () => count('long tests', vitest(['--project', 'long'])),
  tables: runTables,
  arm: runArm,
  gpu: () => runEmulated(),
  'gpu-quick': () => runEmulated(true),
  frameworks: () => count('frameworks', vitest(['--project', 'frameworks']))
}

const asked = process.argv.slice(2)
const unknown = asked.filter((name) => !(name in suites))
if (unknown.length) {
  console.error(`There is no suite ${unknown.join(', ')}; choose among ${Object.keys(suites).join(', ')}`)
  process.exit(2)
}
if (!existsSync(goldens)) {
  console.log(`The whole set of reference results is not at ${goldens}; its part in test/fixtures/golden is used.`)
  console.log('PALIGEMMA_SHARED names another place.')
}
if (!node('build.mjs')) count('build', { failed: 1 })
else for (const name of asked.length ? asked : ['cpp', 'symbols', 'vitest']) suites[name]()
console.log(`${total.passed} passed, ${total.failed} failed${total.skipped ? `, ${total.skipped} skipped` : ''}`)
process.exitCode = total.failed ? 1 : 0
