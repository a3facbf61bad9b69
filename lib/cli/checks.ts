/** What is wrong with the options of a call, said before a model is loaded for it. */
import type { BatchTask } from '../api/many/batch-tasks'
import type { GenerateOptions, LoadOptions } from '../api/options/options'
import type { SamplingOptions } from '../api/options/sampling'
import { nativeCall } from '../base/errors'
import { check, rule, type Rule } from '../base/validate'

/** As people type it: `minScore` is `--min-score`. */
export const flagOf = (name: string): string => `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`

/** Where people type other names than the calls have. */
const typed: Record<string, readonly string[]> = {
  labels: ['--label', '--detect'],
  choices: ['--choice'],
  targets: ['--target'],
  adapters: ['--adapter'],
  allowedHosts: ['--allowed-host'],
  minInterval: ['--every'],
  name: ['--queue']
}

/** A message about an option of a call with the name of the flag that people typed for it. */
export function asTyped(message: string, flags: readonly string[]): string {
  return message.replace(/ for (\w+) but received /, (all, name: string) => {
    const flag = [flagOf(name), ...(typed[name] ?? [])].find((flag) => flags.includes(flag))
    return flag === undefined ? all : ` for ${flag} but received `
  })
}

/** Throws for the first wrong one of those that `rules` know. */
export function checkFlags(options: object, rules: object): void {
  const table = rules as Record<string, Rule>
  for (const [name, value] of Object.entries(options))
    if (value !== undefined && Object.hasOwn(table, name)) check(name, value, table[name]!)
}

/** Of a flag in seconds whose option counts milliseconds. */
export function secondsRule(least: number, most = 2 ** 31 - 1): Rule {
  return { ...rule.number(least / 1000, most / 1000), expected: `${least / 1000} to ${most / 1000} seconds` }
}

/** Options of one of a model's calls. */
export async function checkCall(task: BatchTask, options: object): Promise<void> {
  const { batchTaskRules } = await import('../api/many/batch-tasks.js')
  checkFlags(options, batchTaskRules[task])
  await checkForm(task, options)
}

interface Form extends SamplingOptions {
  /** Of detect and segment: whether. */
  constrain?: GenerateOptions['constrain'] | boolean
  choices?: unknown
}

/** How it generates, and what the output may be: together, and the form by itself. */
async function checkForm(task: BatchTask, { constrain, choices, ...sampling }: Form): Promise<void> {
  const { checkSampling } = await import('../api/options/sampling.js')
  const { toNativeConstraint } = await import('../output/constraint.js')
  const objects = task === 'detect' || task === 'segment'
  const constrained = objects ? constrain !== false : constrain !== undefined || choices !== undefined
  checkSampling(sampling, constrained, flagOf)
  if (typeof constrain === 'boolean') return
  const form = await toNativeConstraint(constrain)
  if (form?.kind !== 'regex' && form?.kind !== 'schema') return
  const { native } = await import('../engine/native.js')
  await nativeCall(async () => await native().checkPattern(form.kind, form.pattern))
}

/** Options that a model is loaded with. */
export async function checkLoad(options: Partial<LoadOptions>): Promise<void> {
  const { loadRules } = await import('../api/options/options.js')
  checkFlags(options, loadRules)
}
