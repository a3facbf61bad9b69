// What many pictures take: time, machines, money and what is in the way, simulated minute by minute over rates that
// were measured. Machines die now and then, as cheap ones do; what they had in hand comes back after the time without
// a sign of life, and a new one starts.
//   node bench/queue-plan.mjs --pictures 1e9 --workers 1000 --rate 0.75 [--price 0.08] [--lost-per-hour 0.05]
import { parseArgs } from 'node:util'

const { values } = parseArgs({
  options: {
    pictures: { type: 'string', default: '1e6' },
    workers: { type: 'string', default: '100' },
    rate: { type: 'string', default: '0.75' }, // pictures a second of one worker
    price: { type: 'string', default: '0.08' }, // of a machine's hour
    'lost-per-hour': { type: 'string', default: '0.05' }, // share of machines
    'start-seconds': { type: 'string', default: '120' },
    'stalled-seconds': { type: 'string', default: '30' },
    concurrency: { type: 'string', default: '8' },
    'redis-jobs': { type: 'string', default: '450' }, // a second, of one Redis
    'job-bytes': { type: 'string', default: '2900' }, // in Redis, with its result
    'picture-bytes': { type: 'string', default: '300000' },
    seed: { type: 'string', default: '1' }
  }
})
const given = Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Number(value)]))
const { pictures, workers, rate, price, concurrency } = given

let state = given.seed >>> 0
/** mulberry32 */
function random() {
  state = (state + 0x6d2b79f5) >>> 0
  let t = state
  t = Math.imul(t ^ (t >>> 15), t | 1)
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}

const step = 60 // seconds
const downUntil = new Float64Array(workers)
let [done, again, time, machineSeconds, deaths, redisLimited] = [0, 0, 0, 0, 0, 0]
while (done < pictures) {
  let able = 0
  for (let i = 0; i < workers; i++) {
    if (downUntil[i] > time) continue
    machineSeconds += step
    if (random() < (given['lost-per-hour'] * step) / 3600) {
      // twice the concurrency is in its hands: half of it looked at, half read ahead
      again += 2 * concurrency
      deaths++
      downUntil[i] = time + step + given['start-seconds']
      able += rate * step * random() - concurrency
    } else able += rate * step
  }
  const most = given['redis-jobs'] * step
  if (able > most) redisLimited++
  done += Math.max(Math.min(able, most), 0)
  time += step
}

const days = time / 86400
const hours = machineSeconds / 3600
const gb = (bytes) => `${(bytes / 1e9).toPrecision(3)} GB`
console.log(`${pictures} pictures, ${workers} workers of ${rate} pictures/s`)
console.log(`time: ${days < 2 ? `${(time / 3600).toFixed(1)} hours` : `${days.toFixed(1)} days`}`)
console.log(`machine hours: ${Math.round(hours)}, at ${price} an hour: ${Math.round(hours * price)}`)
console.log(`machines lost: ${deaths}; pictures begun again: ${again} (${((100 * again) / pictures).toFixed(3)} %)`)
console.log(
  `Redis: ${Math.round(pictures / time)} jobs/s; all jobs with their results: ${gb(pictures * given['job-bytes'])}`
)
console.log(
  `pictures read: ${gb(pictures * given['picture-bytes'])}, ${gb((pictures / time) * given['picture-bytes'] * 8)}it/s`
)
if (redisLimited > 0) console.log('in the way: one Redis; use several queues')
