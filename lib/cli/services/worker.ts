/** `paligemma worker`: takes pictures from a queue in Redis. */
import type { Command } from '../vendored'
import type { WorkerOptions } from '../../queue'
import { rule, type Rule } from '../../base/validate'
import { addLoadOptions, integer, loadOptions, number, seconds } from '../args'
import { checkFlags, secondsRule } from '../checks'
import { announce, type Context, counted } from '../context'
import { addExamples, group } from '../help'

export function addWorker(program: Command, context: Context): void {
  const command = program
    .command('worker')
    .summary('takes pictures from a queue in Redis, with any number of others')
    .description(
      'Works on the jobs that node-paligemma/queue adds, over BullMQ. Ends on SIGTERM or Ctrl-C when it has finished ' +
        'what it took; one that is killed loses nothing. Needs "npm install bullmq ioredis". See docs/queue.md.'
    )
  addExamples(
    command,
    'worker --model demo --redis redis://127.0.0.1:6379',
    'worker -m paligemma2-3b-mix-224-Q4_K_M.gguf --redis rediss://queue.example.com --out results/ --concurrency 8'
  )
  command
    .optionsGroup(group.task)
    .option('--redis <url>', 'where the queue is (default: REDIS_URL, else redis://127.0.0.1:6379)')
    .option('--queue <name>', 'its name (default: paligemma)')
    .option('--concurrency <n>', 'pictures decoded together (default: up to 8, as memory allows)', integer)
    .option('--rate <n>', 'at most so many jobs a second, by all workers together', number)
    .option('--stalled-after <seconds>', 'without a sign of life its jobs go to others (default: 30)', seconds)
    .optionsGroup(group.output)
    .option('--out <folder>', 'write results as lines of JSON as well')
  addLoadOptions(command).action(async (options: Record<string, unknown>) => {
    await work(options, context)
  })
}

/** Of flags in other units than their options. */
const flagRules: Record<string, Rule> = {
  rate: rule.number(1e-6, 1e6),
  stalledAfter: secondsRule(100)
}

async function work(options: Record<string, unknown>, context: Context): Promise<void> {
  checkFlags(options, flagRules)
  const redis = (options['redis'] as string | undefined) ?? process.env['REDIS_URL'] ?? 'redis://127.0.0.1:6379'
  const { startWorker } = await import('../../queue/index.js')
  const load = await loadOptions(options, context.signal)
  const worker = await startWorker({
    redis,
    name: options['queue'] as string | undefined,
    model: load,
    concurrency: options['concurrency'] as number | undefined,
    rate: rateOf(options['rate'] as number | undefined),
    out: options['out'] as string | undefined,
    stalledMs: milliseconds(options['stalledAfter'] as number | undefined)
  })
  announce(context, `Taking pictures from ${withoutSecrets(redis)}, ${worker.concurrency} at once`)
  const stop = (): void => void worker.close()
  context.signal.addEventListener('abort', stop, { once: true })
  if (context.signal.aborted) stop()
  try {
    await worker.ended
  } finally {
    context.signal.removeEventListener('abort', stop)
    const { done, failed } = worker.counts
    context.stderr.write(`${counted(done + failed, 'pictures')}: ${done} ok, ${failed} failed\n`)
  }
}

/** Fewer than one a second: one in so many. */
function rateOf(perSecond: number | undefined): WorkerOptions['rate'] {
  if (perSecond === undefined) return undefined
  return perSecond >= 1
    ? { max: Math.round(perSecond), perMs: 1000 }
    : { max: 1, perMs: Math.max(Math.round(1000 / perSecond), 1) }
}

const milliseconds = (seconds: number | undefined): number | undefined =>
  seconds === undefined ? undefined : Math.round(seconds * 1000)

function withoutSecrets(url: string): string {
  if (!URL.canParse(url)) return url
  const { protocol, host, pathname } = new URL(url)
  return `${protocol}//${host}${pathname}`
}
