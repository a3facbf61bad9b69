/** What tiles of a large picture take in memory: measured in a process of its own, and in its decoder's. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, expect, it } from 'vitest'

const folder = mkdtempSync(join(tmpdir(), 'paligemma-large-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

// 8192 x 8192 pixels: 201 MB as RGB, of which nobody may hold more than parts.
const side = 8192
const wholeMb = (3 * side * side) / 1e6

const child = `
const { readFileSync, readdirSync } = require('node:fs')
const { loadModel, demoImage } = require(process.argv[1])
const most = (pid, key) => {
  try {
    return Number(new RegExp(key + ':\\\\s+(\\\\d+)').exec(readFileSync('/proc/' + pid + '/status', 'utf8'))[1]) / 1000
  } catch {
    return 0
  }
}
const children = () => readFileSync('/proc/self/task/' + process.pid + '/children', 'utf8').trim().split(' ')
async function main() {
  const model = await loadModel('demo')
  await model.detect(demoImage, 'circle')
  const before = most('self', 'VmRSS')
  let decoder = 0
  const looking = setInterval(() => {
    for (const pid of children()) decoder = Math.max(decoder, most(pid, 'VmHWM'))
  }, 20)
  const found = await model.detect(process.argv[2], 'circle', { tiles: { columns: 4, rows: 4 } })
  clearInterval(looking)
  console.log(JSON.stringify({ grown: most('self', 'VmHWM') - before, decoder, tiles: found.tiles.length }))
  await model.dispose()
}
main()
`

const timeout = 300_000
it.skipIf(process.platform !== 'linux').each([
  ['tiled.tif', { tile: true, tileWidth: 256, tileHeight: 256 }],
  ['strips.tif', {}],
  ['large.jpg', undefined]
])('%s, stays at a part of the picture', { timeout }, async (name, tiff) => {
  const file = join(folder, name)
  const shape = await sharp(join(__dirname, '../../demo/shapes.png')).resize(512, 512).toBuffer()
  const picture = sharp({
    create: { width: side, height: side, channels: 3, background: '#888' },
    limitInputPixels: false
  }).composite([{ input: shape, left: 700, top: 700 }])
  await (tiff ? picture.tiff({ compression: 'packbits', ...tiff }) : picture.jpeg()).toFile(file)
  const { stdout, stderr } = spawnSync(process.execPath, ['-e', child, join(__dirname, '../..'), file], {
    encoding: 'utf8',
    timeout: 240_000
  })
  expect(stderr).toBe('')
  const { grown, decoder, tiles } = JSON.parse(stdout) as { grown: number; decoder: number; tiles: number }
  expect(tiles).toBe(17)
  expect(grown).toBeLessThan(wholeMb / 2)
  expect(decoder).toBeGreaterThan(20) // it was seen
  expect(decoder).toBeLessThan(wholeMb)
})
