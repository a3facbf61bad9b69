// What `bench/peers.mjs` may be asked.
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'

/** Name of `--size` to that of our random models. */
export const sizes = { '3b': '3b-224', small: 'small-224' }

/** What is compared, in the order in which it runs. */
export const jobNames = ['vision', 'onnx-int8', 'onnx-int4', 'llama-q8_0', 'llama-q4_0', 'transformers']

function integers(name, text, least = 1) {
  const values = text.split(',').map(Number)
  const wrong = values.some((value) => !Number.isInteger(value) || value < least)
  if (wrong)
    throw new Error(`Expected integers from ${least} on, with commas between them, for --${name} but received ${text}`)
  return values
}

function oneOf(name, list, value) {
  if (!list.includes(value)) throw new Error(`Expected one of ${list.join(', ')} for --${name} but received ${value}`)
  return value
}

export function parseOptions(args, cores = availableParallelism()) {
  const { values } = parseArgs({
    args,
    options: {
      size: { type: 'string', default: '3b' },
      threads: { type: 'string', default: cores > 1 ? '1,2' : '1' },
      rounds: { type: 'string', default: '5' },
      tokens: { type: 'string', default: '16' },
      only: { type: 'string', default: jobNames.join(',') },
      dir: { type: 'string' },
      json: { type: 'string' }
    }
  })
  const [rounds] = integers('rounds', values.rounds)
  const [tokens] = integers('tokens', values.tokens)
  return {
    size: sizes[oneOf('size', Object.keys(sizes), values.size)],
    threads: integers('threads', values.threads),
    rounds,
    tokens,
    only: values.only.split(',').map((name) => oneOf('only', jobNames, name)),
    dir: values.dir,
    json: values.json
  }
}
