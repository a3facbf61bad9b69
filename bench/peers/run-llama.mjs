// node-llama-cpp over the text part of our own random model.
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { serve, timed } from './child.mjs'

await serve(async ({ folder, path, threads, prefill, tokens }) => {
  const entry = pathToFileURL(join(folder, 'node_modules', 'node-llama-cpp', 'dist', 'index.js')).href
  const { getLlama, LlamaLogLevel } = await import(entry)
  const llama = await getLlama({ gpu: false, build: 'never', skipDownload: true, logLevel: LlamaLogLevel.error })
  const model = await llama.loadModel({ modelPath: path })
  const context = await model.createContext({
    contextSize: 512,
    batchSize: 512,
    threads: { ideal: threads, min: threads }
  })
  const sequence = context.getSequence()
  let runs = 0
  const run = async () => {
    await sequence.clearHistory()
    const prompt = Array.from({ length: prefill }, (_, i) => 1000 + ((i * 131 + runs * 17) % 20000))
    runs++
    const answer = sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })
    const next = async () => {
      if ((await answer.next()).done) throw new Error('the model ended its answer')
    }
    const first = await timed(next)
    const decode = await timed(async () => {
      for (let i = 0; i < tokens; i++) await next()
    }, tokens)
    await answer.return()
    return { prefill: first, decode }
  }
  return { run }
})
