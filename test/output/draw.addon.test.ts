/** Drawing by the built package, in a process whose machine has no fonts. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

describe('labels where the machine has no fonts', () => {
  it('are readable, or numbers with a note', () => {
    const folder = mkdtempSync(join(tmpdir(), 'fonts-'))
    writeFileSync(join(folder, 'fonts.conf'), '<?xml version="1.0"?><fontconfig></fontconfig>')
    const drawing = `
      const { drawDetections } = require(${JSON.stringify(join(__dirname, '..', '..'))})
      const image = { data: new Uint8Array(120 * 80 * 3).fill(128), width: 120, height: 80 }
      const box = { x: 10, y: 30, width: 50, height: 40 }
      const draw = async (label) => (await drawDetections(image, [{ label, box }])).toString('base64')
      const words = ['café', 'bébé', 'rosé', 'cafe', 'łódź', 'πίτα', 'рыба', 'cá', '日本', '日本 2', '#1']
      Promise.all(words.map(draw)).then((pictures) => console.log(JSON.stringify(pictures)))`
    const { stdout, stderr } = spawnSync(process.execPath, ['-e', drawing], {
      encoding: 'utf8',
      env: { ...process.env, FONTCONFIG_FILE: join(folder, 'fonts.conf') }
    })
    rmSync(folder, { recursive: true })
    const pictures = JSON.parse(stdout) as string[]
    expect(new Set(pictures.slice(0, 9)).size).toBe(9)
    expect(pictures[8]).toBe(pictures[10])
    expect(stderr).toMatch(/PALIGEMMA_LABEL_FONT.*"日本"; the picture shows #1/)
  })
})
