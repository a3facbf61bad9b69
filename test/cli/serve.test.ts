/** The names of `paligemma serve --model`. */
import { expect, it } from 'vitest'
import { nameAndModel } from '../../lib/cli/services/serve'

it.each([
  ['demo', 'demo', 'demo'],
  ['models/mix-Q4_K_M.gguf', 'mix-Q4_K_M', 'models/mix-Q4_K_M.gguf'],
  ['mix=models/mix.gguf', 'mix', 'models/mix.gguf'],
  ['google/paligemma2-3b-mix-224:Q4_K_M', 'google/paligemma2-3b-mix-224:Q4_K_M', 'google/paligemma2-3b-mix-224:Q4_K_M'],
  ['./a=b.gguf', 'a=b', './a=b.gguf']
])('%s is served as %s', (text, name, model) => {
  expect(nameAndModel(text)).toEqual([name, model])
})
