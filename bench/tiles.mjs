// What tiles gain: scenes of small shapes, whose truth is known, seen whole, padded and in tiles by the demo model.
//   node bench/tiles.mjs [--scenes 20] [--kind small|panorama|border|large|empty] [--seed 1] [--out DIR]
//                        [--task segment] [--way whole|pad|tiles] [--tiles auto|4x3|800] [--table]
//   node bench/tiles.mjs --ratio 4    eight tiles against eight calls
//
// Each label of a scene is asked for by itself, with the recommended minimum score. Found: the right label and a box
// IoU above 0.5; duplicates: further boxes of an object already found. `--task segment` measures masks too. Seconds are
// processor time. One JSON line a kind and way, and with --table all of them as Markdown at the end.
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import sharp from 'sharp'
import { drawDetections, loadModel, recommendedMinScore } from '../dist/index.mjs'
import { ratio } from './tiles/ratio.mjs'
import { kinds, randomOf, scene } from './tiles/scenes.mjs'
import { addScene, emptyTally, markdownOf, rowOf } from './tiles/score.mjs'

const { values: options } = parseArgs({
  options: {
    scenes: { type: 'string', default: '20' },
    kind: { type: 'string', multiple: true, default: ['small', 'panorama', 'border', 'large', 'empty'] },
    seed: { type: 'string', default: '1' },
    task: { type: 'string', default: 'detect' },
    way: { type: 'string', multiple: true, default: ['whole', 'pad', 'tiles'] },
    tiles: { type: 'string', multiple: true, default: ['auto'] },
    out: { type: 'string' },
    table: { type: 'boolean' },
    ratio: { type: 'string' }
  }
})
if (options.ratio) {
  await ratio(Number(options.ratio))
  process.exit()
}

const parseTiles = (text) => {
  const [, columns, rows] = /^(\d+)x(\d+)$/.exec(text) ?? []
  return columns ? { columns: Number(columns), rows: Number(rows) } : text === 'auto' ? text : { size: Number(text) }
}
const ways = [
  ['whole', 'squash', {}],
  ['pad', 'pad', {}],
  ...options.tiles.map((text) => [`tiles ${text}`, 'squash', { tiles: parseTiles(text) }])
].filter(([way]) => options.way.includes(way.split(' ')[0]))
const models = { squash: await loadModel('demo'), pad: await loadModel({ model: 'demo', fit: 'pad' }) }

async function look(kind, fit, call) {
  const random = randomOf(Number(options.seed) * 1000 + Object.keys(kinds).indexOf(kind))
  const tally = emptyTally()
  for (let i = 0; i < Number(options.scenes); i++) {
    const drawn = scene(kind, random)
    const data = await sharp(Buffer.from(drawn.svg)).removeAlpha().raw().toBuffer()
    const pixels = { data, width: drawn.width, height: drawn.height, channels: 3 }
    const results = []
    const before = process.cpuUsage()
    for (const label of drawn.labels) {
      const found = await models[fit][options.task](pixels, label, { minScore: recommendedMinScore(label), ...call })
      if (found.tiles) tally.views = found.tiles.length
      results.push(...found)
    }
    const { user, system } = process.cpuUsage(before)
    tally.seconds += (user + system) / 1e6
    await addScene(tally, drawn, results)
    if (call.tiles && options.out)
      await sharp(await drawDetections(pixels, results)).toFile(join(options.out, `${kind}-${i}.png`))
  }
  return tally
}

if (options.out) mkdirSync(options.out, { recursive: true })
const rows = []
for (const kind of options.kind) {
  for (const [way, fit, call] of ways) {
    rows.push(rowOf(kind, way, Number(options.scenes), await look(kind, fit, call)))
    console.log(JSON.stringify(rows.at(-1)))
  }
}
if (options.table) console.log(markdownOf(rows))
for (const model of Object.values(models)) await model.dispose()
