// npm test: builds everything, then runs the C++ tests under the address and undefined-behaviour sanitizers, the
// symbol check and vitest, what compares with reference results once for every kernel table of this machine. The last
// line sums all of them up; the exit code is 1 when anything failed.
import { spawnSync } from 'node:child_process'
import { createRequire } from 'node:module'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

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

function nativeTests() {
  const build = join(root, 'build', 'sanitize')
  const ninja = !existsSync(join(build, 'CMakeCache.txt')) && spawnSync('ninja', ['--version']).status === 0
  // -O1: the sanitizers find the same, in a tenth of the time of -O0
  const configure = run(
    'cmake',
    [
      '-S',
      root,
      '-B',
      build,
      '-DCMAKE_BUILD_TYPE=Sanitize',
      '-DCMAKE_CXX_FLAGS_SANITIZE=-O1 -g1',
      '-DPALIGEMMA_ADDON=OFF',
      '-DPALIGEMMA_TESTS=ON',
      '-DPALIGEMMA_SANITIZE=address,undefined',
      ...(ninja ? ['-G', 'Ninja'] : [])
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] }
  )
  if (configure.status !== 0) return { failed: 1 }
  if (run('cmake', ['--build', build, '--parallel', String(availableParallelism())]).status !== 0) return { failed: 1 }
  const { stdout, status } = run(join(build, 'native_tests'), [], {
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

// The reference results again, on the other kernel tables that this machine runs: what users of other processors get.
const everyTable = ['api/golden-hf', 'api/segment', 'retrieval/retrieval', 'api/adapters', 'cli/demo'].map(
  (name) => `test/${name}.addon.test.ts`
)

function otherTables() {
  const { isa, supported } = createRequire(import.meta.url)(join(root, 'build', 'Release', 'paligemma.node')).cpuInfo()
  return supported.filter((name) => name !== isa)
}

function vitest(files = [], extra = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'paligemma-test-'))
  const report = join(folder, 'report.json')
  try {
    const { status } = run(
      process.execPath,
      [
        join(root, 'node_modules', 'vitest', 'vitest.mjs'),
        'run',
        ...files,
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

const built = node('build.mjs')
if (!built) {
  count('build', { failed: 1 })
} else {
  if (!existsSync(goldens)) {
    console.log(
      `The reference results are not at ${goldens}: the tests that compare with them are skipped. PALIGEMMA_SHARED names another place.`
    )
    // somebody's clone may lack them, the machine that guards the project may not
    if (process.env.CI) count('reference results', { failed: 1 })
  }
  count('C++', nativeTests())
  count('symbols', node('check-symbols.mjs', join(root, 'build', 'cmake')) ? { passed: 1 } : { failed: 1 })
  count('vitest', vitest())
  for (const isa of otherTables()) count(`vitest on ${isa}`, vitest(everyTable, { PALIGEMMA_ISA: isa }))
}
console.log(`${total.passed} passed, ${total.failed} failed${total.skipped ? `, ${total.skipped} skipped` : ''}`)
process.exitCode = total.failed ? 1 : 0
