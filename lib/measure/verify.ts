/** Whether package, engine, processor and model do here what they should: what to ask for first when they do not. */
import { basename } from 'node:path'
import { publicCall, type Taken } from '../base/call'
import { sha256Of } from '../base/checksum'
import { PaliGemmaError } from '../base/errors'
import type { DeviceName } from '../base/device-name'
import { demoImage, demoModel, packageVersion } from '../base/package-files'
import { rule, type Rules, type WithPaths } from '../base/validate'
import { ModelHost } from '../api/request/host'
import { inspectModel } from '../api/inspect'
import { PaliGemma } from '../api/model'
import type { DeviceInfo } from '../api/options/device'
import { loadRules } from '../api/options/options'
import { listNativeDevices } from '../engine/cuda-kernels'
import { native, nativePath } from '../engine/native'
import { recordedSums } from '../hub/cache'
import { resolveModel } from '../hub/resolve'
import { decodeImage } from '../images/decode'
import { estimateMemory } from './estimate'
import { peakMemory, resetPeakMemory } from './memory'
import { demoAnswers, demoChecksum, demoPicture, demoTolerance, sameAnswer } from './verify-demo'

/** Options of {@link verifyModel}. */
export interface VerifyOptions {
  /** A GGUF, the name of a pulled model, or "demo" (default), the small model that ships with the package. */
  model?: string | URL | undefined
  /** Its vision GGUF, where that is separate. */
  vision?: string | URL | undefined
  /** Compute threads; default: as for `loadModel`. */
  threads?: number | undefined
  /** 0..1, and what is checked. */
  onProgress?: ((fraction: number, what: string) => void) | undefined
  /** Aborting rejects with the signal's reason. */
  signal?: AbortSignal | undefined
}

/** One check of {@link verifyModel} and how it ended. */
export interface VerifyCheck {
  /** "kernels avx2", "demo on avx2", "weights", ... */
  name: string
  /** "skipped" where there is nothing to check here; `detail` says why. */
  outcome: 'ok' | 'failed' | 'skipped'
  /** What was found, in a line. */
  detail: string
  /** How long it took, in milliseconds. */
  ms: number
}

/** What {@link verifyModel} finds. */
export interface VerifyResult {
  /** No check failed. */
  ok: boolean
  /** Path of the GGUF. */
  model: string
  /** Version of this package. */
  package: string
  /** Version of Node: "v22.11.0". */
  node: string
  /** System and processor: "linux-x64". */
  platform: string
  /** The file of the engine; '' where the application loaded it itself. */
  engine: string
  /** The instruction set in use: "avx2". */
  isa: string
  /** All that this machine can use. */
  supported: string[]
  /** Compute threads of the checks. */
  threads: number
  /** In the order in which they ran. */
  checks: VerifyCheck[]
}

const verifyRules: Rules<VerifyOptions> = {
  model: loadRules.model,
  vision: loadRules.vision,
  threads: loadRules.threads,
  onProgress: loadRules.onProgress,
  signal: rule.signal
}

/**
 * Checks every kernel table of this machine against the plain one, the demo model's answers on each and on each GPU,
 * and of the model its checksum, its weights, its memory and that it answers twice the same. A few seconds for the
 * demo; for others as long as it takes to read the file two times. A check that fails is in the result; nothing is
 * thrown for it.
 * @throws PaliGemmaError ERR_MODEL_NOT_FOUND and ERR_MODEL_INVALID where there is no such model or it is no GGUF,
 * ERR_NATIVE_MISSING without an engine
 */
export async function verifyModel(options: VerifyOptions = {}): Promise<VerifyResult> {
  return await publicCall<WithPaths<VerifyOptions>, VerifyResult>('verifyModel', options, verifyRules, [], verify)
}

/** A check: its detail where all is well, an Error with the reason where not. */
interface Step {
  name: string
  run: () => Promise<string>
}

/** What a check cannot say here. */
class Skipped extends Error {}

async function verify(options: Taken<WithPaths<VerifyOptions>>): Promise<VerifyResult> {
  const { onProgress, signal } = options
  const binding = native()
  const { isa, supported, threads } = binding.cpuInfo()
  const gpus = (await listNativeDevices(binding)).devices.filter(({ device }) => device !== 'cpu')
  const resolved = await resolveModel(options.model ?? 'demo')
  const files = [resolved.path, options.vision ?? resolved.vision] as const
  for (const file of files) if (file !== undefined) await inspectModel(file, { maxArray: 0 })
  const steps: Step[] = [
    // before anything else takes memory of this process
    { name: 'memory', run: async () => await checkMemory(...files, options) },
    ...supported.map((table) => ({ name: `kernels ${table}`, run: async () => await checkTable(table) })),
    ...supported.map((isa) => ({ name: `demo on ${isa}`, run: async () => await checkDemo({ isa }, options) })),
    ...gpus.map((gpu) => ({ name: `demo on ${gpu.device}`, run: async () => await checkDemo(gpu, options) })),
    { name: 'pictures', run: async () => await checkPictures(signal) },
    ...checksOfModel(...files, options)
  ]
  const checks: VerifyCheck[] = []
  for (const [i, step] of steps.entries()) {
    onProgress?.(i / steps.length, step.name)
    checks.push(await take(step, signal))
  }
  onProgress?.(1, '')
  return {
    ok: checks.every(({ outcome }) => outcome !== 'failed'),
    model: resolved.path,
    package: packageVersion(),
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    engine: nativePath(),
    isa,
    supported,
    threads: options.threads ?? threads,
    checks
  }
}

async function take({ name, run }: Step, signal: AbortSignal): Promise<VerifyCheck> {
  signal.throwIfAborted()
  const start = performance.now()
  const done = (outcome: VerifyCheck['outcome'], detail: string): VerifyCheck => ({
    name,
    outcome,
    detail,
    ms: performance.now() - start
  })
  try {
    return done('ok', await run())
  } catch (error) {
    signal.throwIfAborted()
    if (error instanceof Skipped) return done('skipped', error.message)
    if (error instanceof PaliGemmaError) return done('failed', `${error.code}: ${error.message}`)
    throw error
  }
}

const wrong = (message: string): never => {
  throw new PaliGemmaError('ERR_INTERNAL', message)
}

async function checkTable(isa: string): Promise<string> {
  const checks = await native().checkKernels(isa)
  const bad = checks.filter(({ error, allowed }) => !(error <= allowed))
  if (bad.length > 0)
    wrong(bad.map(({ kernel, error, allowed }) => `${kernel} is off by ${error}, allowed ${allowed}`).join('; '))
  return `${checks.length} kernels agree with the plain ones`
}

/** On the CPU with a kernel table, or on a GPU of `listDevices`. */
type Where = { isa: string } | Pick<DeviceInfo, 'device' | 'problem'>

async function checkDemo(where: Where, { threads, signal }: Taken<WithPaths<VerifyOptions>>): Promise<string> {
  const onGpu = 'device' in where
  if (onGpu && where.problem) throw new Skipped(where.problem)
  const device = (onGpu ? where.device : 'cpu') as DeviceName
  const options = { model: demoModel, ...(threads && { threads }), signal, maxSequences: 1, device }
  await using model = new PaliGemma(await ModelHost.open(native(), options, onGpu ? {} : where))
  const image = demoPicture()
  let worst = 0
  for (const { prompt, text, logProb } of demoAnswers) {
    const found = await model.generate({ image, prompt, maxTokens: 64, signal })
    if (!sameAnswer(found.text, text))
      wrong(`"${prompt}" gives ${JSON.stringify(found.text)} in place of ${JSON.stringify(text)}`)
    const { total } = await model.score({ image, prompt, suffix: text, signal })
    worst = Math.max(worst, Math.abs(total - logProb))
    if (!(Math.abs(total - logProb) <= demoTolerance))
      wrong(`"${prompt}": the log-probability of its answer is ${total} in place of ${logProb}`)
  }
  return `${demoAnswers.length} answers as they should be, log-probabilities within ${worst.toFixed(4)}`
}

async function checkPictures(signal: AbortSignal): Promise<string> {
  try {
    const { width, height } = await decodeImage(demoImage, { signal })
    return `the demo's PNG is read, ${width} x ${height}`
  } catch (error) {
    if ((error as { code?: string }).code === 'ERR_DEPENDENCY_MISSING') throw new Skipped((error as Error).message)
    throw error
  }
}

function checksOfModel(path: string, vision: string | undefined, options: Taken<WithPaths<VerifyOptions>>): Step[] {
  const files = [path, ...(vision === undefined ? [] : [vision])]
  return [
    { name: 'checksum', run: async () => await checkSums(files, options.signal) },
    { name: 'weights', run: async () => await checkAllWeights(files, options.signal) },
    { name: 'answers', run: async () => await checkAnswers(path, vision, options) }
  ]
}

/** With what is known: the demo's of this version, and those that `pull` wrote down of all files of a model. */
async function checkSums(files: string[], signal: AbortSignal): Promise<string> {
  const known = await recordedSums(files[0]!)
  const all = [...new Set([...files, ...known.keys()])]
  const found: string[] = []
  let unknown = false
  for (const file of all) {
    const sum = await sha256Of(file, signal).catch((error: Error) =>
      wrong(`${basename(file)} cannot be read: ${error.message}`)
    )
    found.push(`SHA-256 ${sum}`)
    const wanted = file === demoModel ? demoChecksum : known.get(file)
    if (wanted !== undefined && wanted !== sum)
      wrong(`${basename(file)} has SHA-256 ${sum} in place of ${wanted}: ${file === demoModel ? reinstall : repull}`)
    unknown ||= wanted === undefined && sum !== demoChecksum
  }
  const sums = found.join(', ')
  if (unknown) throw new Skipped(`${sums}; compare it with the publisher's, it is not known here`)
  return known.size > 0 ? `${sums}, as when it was pulled` : sums
}

const reinstall = 'install the package again'
const repull = 'it changed since it was pulled; pull it again with --force'

const bytesAtOnce = 2 ** 28

/** In pieces, so that an abort need not wait for gigabytes. */
async function checkAllWeights(files: string[], signal: AbortSignal): Promise<string> {
  let count = 0
  const problems: string[] = []
  for (const file of files) {
    const { tensors } = await inspectModel(file, { maxArray: 0 })
    for (let first = 0; first < tensors.length; ) {
      signal.throwIfAborted()
      let end = first
      for (let bytes = 0; end < tensors.length && (end === first || bytes < bytesAtOnce); end++)
        bytes += tensors[end]!.bytes
      problems.push(...(await native().checkWeights(file, first, end - first)))
      first = end
    }
    count += tensors.length
  }
  if (problems.length > 0)
    throw new PaliGemmaError(
      'ERR_MODEL_INVALID',
      `${problems[0]}${problems.length > 1 ? `; and ${problems.length - 1} tensors more` : ''}`
    )
  return `${count} tensors hold finite numbers`
}

const megabytes = (bytes: number): string => `${Math.round(bytes / 1e6)} MB`
// Node's own heap grows while it works
const slack = 64e6

async function checkMemory(
  path: string,
  vision: string | undefined,
  options: Taken<WithPaths<VerifyOptions>>
): Promise<string> {
  const { threads } = options
  const common = { ...(vision !== undefined && { vision }), ...(threads && { threads }), maxSequences: 1 }
  const { total } = await estimateMemory(path, common)
  resetPeakMemory()
  const before = peakMemory()
  await answer(path, vision, options, 1)
  const taken = peakMemory() - before
  if (taken > 1.5 * total + slack) wrong(`${megabytes(taken)} were taken, planned were ${megabytes(total)}`)
  return `${megabytes(taken)} taken, ${megabytes(total)} planned for one request`
}

async function checkAnswers(
  path: string,
  vision: string | undefined,
  options: Taken<WithPaths<VerifyOptions>>
): Promise<string> {
  const [one, two] = await answer(path, vision, options, 2)
  if (one !== two) wrong(`the same request gave ${JSON.stringify(one)} and ${JSON.stringify(two)}`)
  return `twice the same: ${JSON.stringify(one)}`
}

/** What the model says of the picture, so many times. */
async function answer(
  path: string,
  vision: string | undefined,
  { threads, signal }: Taken<WithPaths<VerifyOptions>>,
  times: number
): Promise<string[]> {
  const options = { model: path, ...(vision !== undefined && { vision }), ...(threads && { threads }), signal }
  await using model = new PaliGemma(await ModelHost.open(native(), { ...options, maxSequences: 1 }))
  const image = model.info.hasVision ? { image: demoPicture() } : {}
  const said: string[] = []
  for (let i = 0; i < times; i++) {
    const request = { ...image, prompt: 'caption en', maxTokens: 32, logProbs: true, signal }
    const { text, tokens } = await model.generate(request)
    said.push(text)
    if (!tokens.every(({ logProb }) => Number.isFinite(logProb))) wrong('a log-probability is not finite')
  }
  return said
}
