// Both sides of a child process that holds one engine: it loads, says so, and then measures once for each message.
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'

/** In the parent: the engine of `script`, loaded. `job` is any JSON. */
export async function start(script, job, env = {}) {
  const file = fileURLToPath(new URL(script, import.meta.url))
  const child = fork(file, [JSON.stringify(job)], { env: { ...process.env, ...env } })
  const answer = async () =>
    await new Promise((resolve, reject) => {
      const ended = (code, signal) => reject(new Error(`${script} ended with ${signal ?? code}`))
      child.once('exit', ended)
      child.once('message', (message) => {
        child.off('exit', ended)
        if (message.error === undefined) resolve(message)
        else reject(new Error(message.error))
      })
    })
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return
    const over = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGKILL') // nothing in there is worth an orderly end
    await over
  }
  try {
    const { loadMs, info } = await answer()
    const run = async () => {
      child.send('run')
      return (await answer()).parts
    }
    return { loadMs, info, run, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

/** In the child: `load(job)` gives `run`, which measures all parts once, and what there is to say about the engine. */
export async function serve(load) {
  const answer = async (work) => process.send(await work().catch(({ stack }) => ({ error: stack })))
  let run
  await answer(async () => {
    const before = performance.now()
    const loaded = await load(JSON.parse(process.argv[2]))
    run = loaded.run
    return { loadMs: performance.now() - before, info: loaded.info }
  })
  process.on('message', () => answer(async () => ({ parts: await run() })))
}

/** Milliseconds of the clock and of all threads' processors, each divided by `count`. */
export async function timed(work, count = 1) {
  const before = process.cpuUsage()
  const start = performance.now()
  const given = await work()
  const ms = performance.now() - start
  const { user, system } = process.cpuUsage(before)
  return { ms: (given?.ms ?? ms) / count, cpuMs: (user + system) / 1000 / count }
}
