// Watches a camera, and says in lines of JSON what came and went.
import { loadModel } from 'node-paligemma'

const [source] = process.argv.slice(2)
if (!source) throw new Error('Usage: node camera.mjs SOURCE')
const model = await loadModel(process.env.MODEL ?? 'demo')
const stop = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => stop.abort())

let looks = 0
const most = Number(process.env.SEE ?? Infinity)
const options = {
  task: 'detect',
  labels: process.env.LABEL ?? 'person',
  tracks: { newScore: 0.4 },
  signal: stop.signal
}
try {
  for await (const { result, error, tracks, time, fps } of model.watch(source, options)) {
    const at = new Date(time).toISOString()
    if (error) console.log(JSON.stringify({ at, error: error.code }))
    for (const { id, label } of tracks?.entered ?? []) console.log(JSON.stringify({ at, came: id, label }))
    for (const { id, label } of tracks?.left ?? []) console.log(JSON.stringify({ at, left: id, label }))
    if (++looks >= most) {
      console.log(JSON.stringify({ looks, fps: Math.round(fps), seen: result?.length ?? 0 }))
      break
    }
  }
} catch (error) {
  if (!stop.signal.aborted) throw error
} finally {
  await model.dispose()
}
