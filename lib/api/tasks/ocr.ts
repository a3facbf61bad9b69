/** `ocr`: the text in a picture, in one pass or tile by tile. */
import type { Taken } from '../../base/call'
import type { ImageInput } from '../../images/image-input'
import { planTextTiles } from '../../images/tile-plan'
import { joinTexts } from '../../output/join-text'
import { runGeneration } from '../request/generation'
import type { ModelHost } from '../request/host'
import type { OcrOptions } from '../options/options'
import { prompts } from '../options/prompts'
import { runTiles, type TileResult } from './tile-run'

export async function ocr(host: ModelHost, image: ImageInput, options: Taken<OcrOptions>): Promise<string> {
  const { tiles, onTile, ...sampling } = options
  const request = { ...sampling, prompt: prompts.ocr() }
  if (tiles === undefined) return (await runGeneration(host, { ...request, image })).result.text
  const square = host.info.imageSize
  const outputs = await runTiles(host, image, request, (picture) => planTextTiles(picture, square, tiles), { onTile })
  return joinTexts(inRows(outputs))
}

/** Tiles come row by row. */
function inRows(outputs: TileResult[]): string[][] {
  const rows = new Map<number, string[]>()
  for (const { view, result } of outputs) {
    const row = rows.get(view.tile.y)
    if (row) row.push(result.text)
    else rows.set(view.tile.y, [result.text])
  }
  return [...rows.values()]
}
