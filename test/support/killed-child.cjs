// One verb of kills.long.test.ts that writes a file, over and over until the process is killed:
//   node killed-child.cjs VERB FOLDER SOURCE
// FOLDER/0 and FOLDER/1 become what the verb writes from two different askings, FOLDER/out is written with either in
// turn. Says how many milliseconds a round takes once the turns begin.
'use strict'
const { copyFileSync, existsSync, mkdirSync, rmSync } = require('node:fs')
const { join } = require('node:path')
const library = require('../../dist/index.js')

const [verb, folder, source] = process.argv.slice(2)
const pixels = { data: new Uint8Array(12 * 12 * 3).fill(80), width: 12, height: 12, channels: 3 }
const examples = [{ image: pixels, prefix: 'caption en', suffix: 'a' }]

const verbs = {
  convert: () => async (out, turn) => await library.convertModel({ source, out, type: ['F32', 'F16'][turn] }),
  quantize: () => async (out, turn) => await library.quantizeModel({ source, out, type: ['F16', 'BF16'][turn] }),
  imatrix: () => async (out, turn) => {
    const prompts = [{ prompt: 'caption en', answer: ['a', 'b'][turn] }]
    await library.collectImportance({ model: source, out, images: [pixels], prompts, threads: 1 })
  },
  fit: async () => {
    const model = await library.loadModel({ model: source, threads: 1 })
    const trained = []
    for (const seed of [0, 1]) trained.push((await model.fit(examples, { steps: 1, rank: 4, seed })).adapter)
    return async (out, turn) => await trained[turn].save(out)
  },
  // SOURCE is the address of a hub. Pulling has a place of its own for what it makes, by the type.
  pull: () => async (out, turn) => {
    const options = { endpoint: source, cacheDir: folder, type: ['F32', 'F16'][turn], force: true }
    const { path } = await library.pull('org/tiny-model', options)
    if (out !== join(folder, 'out.gguf')) copyFileSync(path, out)
  }
}

async function main() {
  const work = await verbs[verb]()
  mkdirSync(folder, { recursive: true })
  const [first, second, out] = ['0', '1', 'out'].map((name) => join(folder, `${name}.gguf`))
  if (!existsSync(second)) {
    await work(first, 0)
    // under another name first: this process may be killed here as well
    const made = join(folder, 'second.gguf')
    await work(made, 1)
    copyFileSync(made, second)
    rmSync(made)
  }
  const begun = performance.now()
  await work(out, 0)
  process.stdout.write(String(performance.now() - begun))
  for (let turn = 1; ; turn = 1 - turn) await work(out, turn)
}

main().catch((error) => {
  console.error(error)
  process.exitCode = 1
})
