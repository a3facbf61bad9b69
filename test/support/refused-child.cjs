// A process in which the system refuses threads, for threads.addon.test.ts:
//   node refused-child.cjs ADDON MODEL load|others THREADS MEGABYTES
// One model answers before and after; what comes between may map only so much more memory. Prints one JSON line.
'use strict'
const { execFileSync } = require('node:child_process')
const { readFileSync } = require('node:fs')

const [addonPath, path, work, threads, megabytes] = process.argv.slice(2)
const addon = require(addonPath)

function limit(bytes) {
  execFileSync('prlimit', ['--pid', String(process.pid), `--as=${bytes}:`])
}

async function limited(task) {
  const mapped = Number(/VmSize:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'latin1'))[1]) * 1024
  limit(mapped + Number(megabytes) * 2 ** 20)
  try {
    return await task()
  } finally {
    limit('unlimited')
  }
}

/** A model that is ready; `tokens()` are what it generates. */
function open(options) {
  return new Promise((resolve, reject) => {
    let ids = []
    let ended = () => {}
    const native = new addon.Model({ path, ...options }, (events) => {
      for (const event of events) {
        if (event.kind === 'ready') resolve({ native, threads: event.info.threads, tokens })
        else if (event.kind === 'token') ids.push(event.token.id)
        else if (event.kind === 'end') ended(ids)
        else if (event.kind === 'error') reject(Object.assign(new Error(event.message), event))
      }
    })
    const tokens = () =>
      new Promise((done) => {
        ids = []
        ended = done
        native.submit({ kind: 'generate', images: [], prompt: 'caption en', maxTokens: 8, ignoreEos: true })
      })
  })
}

const works = {
  async load() {
    try {
      const model = await limited(() => open({ threads: Number(threads) }))
      return { threads: model.threads, tokens: await model.tokens() }
    } catch ({ code, message }) {
      return { code, message }
    }
  },
  async others() {
    const store = addon.createPageStore('f32', 2, Number(threads))
    store.add(new Uint8Array(new Float32Array([1, 0]).buffer), undefined)
    const query = new Uint8Array(new Float32Array([1, 0]).buffer)
    return await limited(async () => {
      const { readGBps } = await addon.machineLimits(Number(threads))
      const { pages } = await store.search(query, undefined, 0, 1, 1)
      return { best: [...pages], limits: readGBps > 0 }
    })
  }
}

async function main() {
  const first = await open({ threads: 1 })
  const before = await first.tokens()
  const result = await works[work]()
  console.log(JSON.stringify({ before, ...result, after: await first.tokens() }))
  process.exit()
}
main()
