// How much of the code that a fuzz target is for its inputs reach: clang's source-based coverage, by lines.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..')

/** The files that a target is there to break. */
const parsers = {
  gguf: ['format/gguf.cpp', 'format/gguf_reader.h'],
  split: ['format/gguf_split.cpp'],
  adapter: ['model/adapters.cpp'],
  model: ['serve/load/model.cpp', 'model/config.cpp'], // format/gguf.cpp is for the target gguf
  tokenizer: ['text/tokenizer.cpp', 'text/added_tokens.cpp'],
  regex: ['text/regex.cpp', 'text/regex_parser.cpp', 'text/char_nfa.cpp'],
  constraint: [
    'text/constraint.cpp',
    'text/object_constraint.cpp',
    'text/text_automaton.cpp',
    'text/text_constraint.cpp'
  ],
  stop: ['text/stop_matcher.cpp'],
  resize: ['image/image.cpp']
}

/** The same tool of the compiler's, whatever Debian calls it. */
function tool(name, args) {
  const program = [`${name}-19`, name].find((candidate) => spawnSync(candidate, ['--version']).status === 0)
  if (!program) throw new Error(`Coverage needs ${name} (Debian: apt-get install llvm-19)`)
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 2 ** 28 })
  if (status !== 0) throw new Error(`${program} ended with ${status}: ${stderr.slice(-1000)}`)
  return stdout
}

function coverageOf({ name, program, inputs }) {
  const [raw, merged] = [`${program}.profraw`, `${program}.profdata`]
  const { status, stderr } = spawnSync(program, ['-runs=0', ...inputs], {
    env: { ...process.env, LLVM_PROFILE_FILE: raw },
    encoding: 'utf8',
    maxBuffer: 2 ** 28
  })
  if (status !== 0) throw new Error(`${name} ended with ${status}: ${stderr.slice(-1000)}`)
  tool('llvm-profdata', ['merge', '-sparse', raw, '-o', merged])
  const sources = parsers[name].map((file) => join(root, 'native', file))
  const { data } = JSON.parse(
    tool('llvm-cov', ['export', '-summary-only', `-instr-profile=${merged}`, program, ...sources])
  )
  return data[0]
}

/** Of a target's lines, in percent: below it, seeds are missing, or code of the target that leads there. */
const floor = 85

/** Prints what each target `{ name, program, inputs: folders }` reaches of its files. Whether all reach enough. */
export function reportCoverage(targets) {
  let enough = true
  for (const target of targets) {
    const { files, totals } = coverageOf(target)
    const inputs = target.inputs.reduce((sum, folder) => sum + readdirSync(folder).length, 0)
    const short = !(totals.lines.percent >= floor)
    if (short) enough = false
    const share = `${totals.lines.percent.toFixed(1)} % of ${totals.lines.count} lines, ${inputs} inputs`
    console.log(`${target.name}: ${share}${short ? `, less than ${floor} %` : ''}`)
    for (const { filename, summary } of files) {
      console.log(`  ${summary.lines.percent.toFixed(1).padStart(5)} % ${filename.slice(root.length + 1)}`)
    }
  }
  return enough
}
