// Eight tiles (and the whole) against eight calls with the same parts: processor time, in turns.
import sharp from 'sharp'
import { loadModel, recommendedMinScore } from '../../dist/index.mjs'
import { randomOf, scene } from './scenes.mjs'

/** Of a picture of 12 megapixels as a JPEG, which each call decodes, and as pixels, which nobody does. */
export async function ratio(rounds) {
  const model = await loadModel('demo')
  const { svg, width, height } = scene('small', randomOf(1))
  const [scale, tiles] = [2.5, { columns: 4, rows: 2 }]
  const drawn = sharp(Buffer.from(svg))
    .resize(width * scale, height * scale)
    .removeAlpha()
  const jpeg = await drawn.clone().jpeg().toBuffer()
  const { data, info } = await drawn.raw().toBuffer({ resolveWithObject: true })
  const raw = { width: info.width, height: info.height, channels: info.channels }
  const call = { minScore: recommendedMinScore('red square') }
  const parts = (await model.detect(jpeg, 'red square', { ...call, tiles })).tiles.slice(1)
  const regions = parts.map(({ x: left, y: top, width, height }) => ({ left, top, width, height }))
  const cut = await Promise.all(
    regions.map(async (region) => ({
      data: await sharp(data, { raw }).extract(region).raw().toBuffer(),
      ...{ width: region.width, height: region.height, channels: 3 }
    }))
  )
  const ways = {
    jpeg: [jpeg, regions.map((region) => () => sharp(jpeg).extract(region))],
    pixels: [{ data, ...raw }, cut.map((picture) => () => picture)]
  }
  for (let round = -1; round < rounds; round++) {
    for (const [input, [whole, single]] of Object.entries(ways)) {
      const tiled = await seconds(() => model.detect(whole, 'red square', { ...call, tiles }))
      const calls = await seconds(async () => {
        for (const picture of single) await model.detect(picture(), 'red square', call)
      })
      // the first round is for warming up
      if (round >= 0) console.log(JSON.stringify({ input, tiled, calls, ratio: Number((tiled / calls).toFixed(2)) }))
    }
  }
  await model.dispose()
}

async function seconds(work) {
  const before = process.cpuUsage()
  await work()
  const { user, system } = process.cpuUsage(before)
  return (user + system) / 1e6
}
