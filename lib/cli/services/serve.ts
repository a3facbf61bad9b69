/** `paligemma serve`: models over HTTP. */
import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import type { Command } from '../vendored'
import type { LoadOptions } from '../../api/options/options'
import { rule, type Rule } from '../../base/validate'
import type { ListenOptions, ServedModel, ServerOptions } from '../../server'
import { adapter, addRunOptions, collect, integer, number, runOptions, seconds } from '../args'
import { checkFlags, checkLoad, secondsRule } from '../checks'
import { announce, type Context, usageError } from '../context'
import { addExamples, group } from '../help'
import { chooseModel } from '../model'

export function addServe(program: Command, context: Context): void {
  const command = program
    .command('serve')
    .summary('a server that OpenAI clients talk to, with a page to try it')
    .description(
      'Serves models over HTTP: OpenAI’s chat completions, responses and embeddings, an endpoint for each task, and ' +
        'a page at "/". Ends on SIGTERM or Ctrl-C when the running requests have been answered.'
    )
  addExamples(
    command,
    'serve --model demo --port 8080',
    'serve -m mix=paligemma2-3b-mix-224-Q4_K_M.gguf -m pages=vidore/colpali-v1.3 --lazy --idle-unload 600',
    'serve --model demo --host 0.0.0.0 --api-key-file keys.txt'
  )
  command
    .optionsGroup(group.model)
    .option(
      '-m, --model <model>',
      'a GGUF, the name of a pulled model or "demo"; NAME=MODEL for another name in requests; may be given several ' +
        'times (default: PALIGEMMA_MODEL, else the only pulled one)',
      collect
    )
    .option(
      '--adapter <name=path>',
      'a LoRA adapter over the first model, under a name of its own; may be given several times',
      collect
    )
    .option('--lazy', 'load models when they are first asked for')
    .option('--idle-unload <seconds>', 'unload models that nobody asks for so long (default: never)', seconds)
    .option('--max-sequences <n>', 'requests decoded together on each model (default: 4)', integer)
  addRunOptions(command)
  addServerOptions(command).action(async (options: Record<string, unknown>) => {
    await serve(options, context)
  })
}

function addServerOptions(command: Command): Command {
  return command
    .optionsGroup(group.server)
    .option('--port <n>', '0: any that is free (default: 8080)', integer)
    .option('--host <address>', 'where to listen; 0.0.0.0: on all networks (default: 127.0.0.1, this machine alone)')
    .option('--no-page', 'no page at "/"')
    .option('--no-log', 'no line of JSON per request on standard error')
    .option('--log-content', 'prompts and answers in the log too')
    .option('--drain <seconds>', 'how long running requests may go on after SIGTERM (default: 30)', seconds)
    .optionsGroup(group.limits)
    .option(
      '--api-key-file <file>',
      'keys, one a line, one of which requests need (also: PALIGEMMA_API_KEYS, by commas)'
    )
    .option(
      '--cors <origin>',
      'a site whose pages may ask, or "*"; may be given several times (default: none)',
      collect
    )
    .option('--allowed-host <name>', 'another name of this server; may be given several times', collect)
    .option('--remote-images', 'requests may name pictures by URL; never ones of private networks (default: off)')
    .option('--max-queue <n>', 'requests under way or waiting; more are answered 429 (default: 100)', integer)
    .option('--deadline <seconds>', 'longest time for a request (default: 300)', seconds)
    .option('--max-body <megabytes>', 'largest request (default: 32)', number)
    .option('--max-images <n>', 'pictures of a request (default: 16)', integer)
}

/** Of flags in other units than their options. */
const flagRules: Record<string, Rule> = {
  idleUnload: secondsRule(1),
  deadline: secondsRule(1),
  drain: secondsRule(0),
  maxBody: { ...rule.number(2 ** -10, 2 ** 10), expected: 'megabytes from 1/1024 to 1024' }
}

async function serve(options: Record<string, unknown>, context: Context): Promise<void> {
  checkFlags(options, flagRules)
  const apiKeys = await readKeys(options['apiKeyFile'] as string | undefined)
  const models = await modelsOf(options)
  const { createServer } = await import('../../server/index.js')
  const { listenRules } = await import('../../server/options.js')
  const where: ListenOptions = {
    port: options['port'] as number | undefined,
    host: options['host'] as string | undefined,
    allowedHosts: options['allowedHost'] as string[] | undefined,
    signal: context.signal
  }
  checkFlags(where, listenRules)
  const server = createServer({ models, apiKeys, ...serverOptions(options, context) })
  const drainMs = milliseconds(options['drain'])
  try {
    const { url, host } = await server.listen(where)
    announce(context, `Listening on ${url} for ${Object.keys(models).join(', ')}`)
    if (!/^(?:127\.|::1$|localhost$)/.test(host) && apiKeys.length === 0)
      context.stderr.write('note: whoever reaches this machine may ask; --api-key-file keeps strangers out\n')
    await untilEnded(server.ready(), context.signal)
  } finally {
    await server.close({ timeoutMs: drainMs })
  }
}

/** Resolves when the signal comes; rejects when loading fails. A signal is how servers end: no failure. */
async function untilEnded(ready: Promise<void>, signal: AbortSignal): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    ready.catch((error: unknown) => (signal.aborted ? resolve() : reject(error)))
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

const milliseconds = (seconds: unknown): number | undefined =>
  typeof seconds === 'number' ? Math.round(seconds * 1000) : undefined

function serverOptions(options: Record<string, unknown>, context: Context): Omit<ServerOptions, 'models' | 'apiKeys'> {
  const origins = options['cors'] as string[] | undefined
  const megabytes = options['maxBody'] as number | undefined
  const write = (line: string): void => void context.stderr.write(line)
  return {
    lazy: options['lazy'] as boolean | undefined,
    idleUnloadMs: milliseconds(options['idleUnload']),
    cors: origins?.includes('*') ? '*' : origins,
    page: options['page'] as boolean | undefined,
    maxQueue: options['maxQueue'] as number | undefined,
    deadlineMs: milliseconds(options['deadline']),
    maxBodyBytes: megabytes === undefined ? undefined : Math.round(megabytes * 2 ** 20),
    maxImages: options['maxImages'] as number | undefined,
    remoteImages: options['remoteImages'] as boolean | undefined,
    logContent: options['logContent'] as boolean | undefined,
    logger: options['log'] === false ? false : write
  }
}

/** `NAME=MODEL`, or a model that gives its own name. */
export function nameAndModel(text: string): [name: string, model: string] {
  const [, name, model] = /^([^/\\=]+)=(.+)$/.exec(text) ?? []
  if (name !== undefined && model !== undefined) return [name, model]
  return [/\.gguf$/i.test(text) ? basename(text).replace(/\.gguf$/i, '') : text, text]
}

async function modelsOf(options: Record<string, unknown>): Promise<Record<string, ServedModel>> {
  const given = (options['model'] as string[] | undefined) ?? [await chooseModel(undefined)]
  const shared = { ...runOptions(options), maxSequences: options['maxSequences'] as number | undefined }
  await checkLoad(shared)
  const models: Record<string, ServedModel> = {}
  const add = (name: string, model: ServedModel): void => {
    if (Object.hasOwn(models, name)) throw usageError(`Expected different names but two models are called ${name}`)
    models[name] = model
  }
  for (const text of given) {
    if (text === '')
      throw usageError('Expected a GGUF, the name of a pulled model or "demo" for --model but received ""')
    const [name, model] = nameAndModel(text)
    add(name, { model, ...shared } as LoadOptions)
  }
  const [base] = Object.keys(models)
  for (const text of (options['adapter'] as string[] | undefined) ?? []) {
    const [, name, path] = /^([^/\\=]+)=(.+)$/.exec(text) ?? []
    if (name === undefined || path === undefined)
      throw usageError(`Expected NAME=PATH for --adapter but received ${text}`)
    add(name, { base: base!, adapters: [adapter(path)] })
  }
  return models
}

async function readKeys(file: string | undefined): Promise<string[]> {
  const fromEnv = process.env['PALIGEMMA_API_KEYS']?.split(',') ?? []
  const text =
    file === undefined
      ? ''
      : await readFile(file, 'utf8').catch((error: Error) => {
          throw usageError(`--api-key-file: ${error.message}`, error)
        })
  const keys = [...fromEnv, ...text.split('\n')].map((line) => line.trim()).filter((line) => line !== '')
  if (file !== undefined && keys.length === 0) throw usageError(`--api-key-file: ${file} has no keys`)
  return keys
}
