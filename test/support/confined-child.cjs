// A process in a cgroup or under hooks, for confined.long.test.ts: node confined-child.cjs LIBRARY THREADS [hooked]
// Prints one JSON line: the threads that a model got, its answers, and what the hooks saw; or the error.
// THREADS: 0 for the default.
'use strict'
const { createHook } = require('node:async_hooks')
const { demoImage, loadModel } = require(process.argv[2])

const threads = Number(process.argv[3])
const seen = { init: 0, before: 0, after: 0, destroy: 0 }
if (process.argv[4] === 'hooked') {
  const count = (what) => () => {
    seen[what]++
    if (seen[what] % 50 === 0) globalThis.gc?.()
  }
  createHook(Object.fromEntries(Object.keys(seen).map((what) => [what, count(what)]))).enable()
}

async function main() {
  const model = await loadModel({ model: 'demo', device: 'cpu', ...(threads && { threads }) })
  const asked = { image: demoImage, prompt: 'detect star ; circle', maxTokens: 12, logProbs: 2 }
  const [first, second] = await Promise.all([model.generate(asked), model.generate(asked)])
  const answers = [first, second].map(({ text, tokens }) => JSON.stringify([text, tokens]))
  await model.dispose()
  return { threads: model.info.threads, answers, seen }
}

main()
  .catch(({ code, message }) => ({ code, message }))
  .then((result) => console.log(JSON.stringify(result)))
