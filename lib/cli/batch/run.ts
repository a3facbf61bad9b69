/** The run of a batch: pictures in, rows out. */
import { type BatchTask, itemKeys } from '../../api/many/batch-tasks'
import { checkOutput, makeFolder } from '../../base/output-file'
import { resultFields } from '../../api/many/rows'
import { loadOptions, pick } from '../args'
import { checkCall } from '../checks'
import { type Context, describeError } from '../context'
import { type BatchFlags, checkNeeded, checkTogether, recommended, settingsOf, sharedOptions, tasks } from './flags'
import { writeFormat } from './formats'
import { Journal } from './journal'
import { filesOfModel } from '../model'
import { Report } from './report'
import { type Entry, errorFields, keyOf } from './rows'
import { openSources } from './sources'

interface Run {
  task: BatchTask
  flags: BatchFlags
  shared: Record<string, unknown>
  journal: Journal
  report: Report
  context: Context
}

/** `failed`: pictures among the rows that have no result. */
export async function runBatchVerb(args: string[], flags: BatchFlags, context: Context): Promise<{ failed: number }> {
  checkTogether(flags)
  const task = tasks[flags.task]
  const { out, format, overwrite = false, retryFailed = false } = flags
  const shared = await sharedOptions(flags, context)
  await checkCall(task, { ...shared, concurrency: flags.concurrency })
  const sources = await openSources(args, flags.filesFrom ?? [], { context, keys: itemKeys(task) })
  if (sources.total !== undefined) checkNeeded(flags)
  const settings = await settingsOf(flags)
  // Without --overwrite nothing that was not begun here is touched.
  const read = overwrite ? [...sources.files, ...(await filesOfModel(await loadOptions(flags, context.signal)))] : []
  if (format === 'yolo') await makeFolder(out, '--out')
  else await checkOutput(out, { option: '--out', sources: read })
  // The rows of jsonl are the results; of other formats they lie beside them.
  const path = format === 'jsonl' ? out : `${out.replace(/[/\\]+$/, '')}.rows.jsonl`
  const journal = await Journal.open({ path, out, sources: read, settings, overwrite, retryFailed, context })
  const report = new Report(context, sources.total, journal.done.size)
  try {
    await work({ task, flags, shared, journal, report, context }, sources.entries)
    await journal.flush()
    report.pause()
    await writeFormat(format, out, journal, { task, labels: shared['labels'] as string[] | undefined })
    return { failed: journal.failed }
  } finally {
    report.end(journal.failed)
    await journal.close()
  }
}

async function work(run: Run, entries: AsyncIterable<Entry>): Promise<void> {
  const fresh = freshItems(run, entries)
  const first = await fresh.next()
  if (first.done) return // no model is needed
  const { task, flags, shared, journal, report, context } = run
  const { signal } = context
  const { loadModel } = await import('../../index.js')
  const { plannedSequences } = await import('../../measure/sequences.js')
  const load = await loadOptions(flags, signal)
  const maxSequences = Math.max(flags.concurrency ?? (await plannedSequences(load)), load.maxSequences ?? 1)
  const model = await loadModel({ ...load, maxSequences }).catch(async (error: unknown) => {
    await fresh.return() // else a list on standard input would keep the process
    throw error
  })
  const options = { ...shared, task, ordered: flags.ordered === true, signal } as { task: BatchTask }
  try {
    for await (const { item, result, error } of model.batch(startingWith(first.value, fresh), options)) {
      const { image, given, ofRow } = entryOf.get(item as object)!
      if (error && endsAll(error, given !== undefined || ofRow === true, signal)) throw error
      const fields = error ? errorFields(error) : resultFields(task, result)
      await journal.append({ image, ...(given && { given }), ...fields })
      report.done(error !== undefined)
    }
  } finally {
    await model.dispose()
  }
}

/** Of an item on its way through the model. */
const entryOf = new WeakMap<object, Entry>()

/** The pictures that have no row yet; those that failed before they were pictures get one here. */
async function* freshItems(
  { task, flags, journal, report }: Run,
  entries: AsyncIterable<Entry>
): AsyncGenerator<object, void, undefined> {
  const keys = itemKeys(task)
  const seen = new Set<string>()
  for await (const entry of entries) {
    const key = keyOf(entry)
    if (journal.done.has(key) || seen.has(key)) {
      report.known()
      continue
    }
    if (entry.error !== undefined) {
      await journal.append({
        image: entry.image,
        ...(entry.given && { given: entry.given }),
        ...errorFields(entry.error)
      })
      report.done(true)
      continue
    }
    seen.add(key)
    const own = pick(entry.given ?? {}, keys)
    if (own['labels'] !== undefined && flags['minScore'] === undefined && own['minScore'] === undefined)
      // the task says what is wrong with labels
      own['minScore'] = await recommended(own['labels'] as string[]).catch(() => undefined)
    const item = { image: entry.picture ?? entry.image, ...own }
    entryOf.set(item, entry)
    yield item
  }
}

async function* startingWith<T>(first: T, rest: AsyncIterable<T>): AsyncGenerator<T, void, undefined> {
  yield first
  yield* rest
}

/** What is wrong for every picture. */
function endsAll(error: Error, hasOwnOptions: boolean, signal: AbortSignal): boolean {
  if (signal.aborted) return true
  const { code } = describeError(error)
  if (['ERR_DEPENDENCY_MISSING', 'ERR_NATIVE_MISSING'].includes(code)) return true
  return !hasOwnOptions && ['ERR_INVALID_OPTION', 'ERR_MODEL_UNSUPPORTED'].includes(code)
}
