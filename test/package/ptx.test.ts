/** What scripts/build-ptx.mjs makes of nvcc's text. */
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, it } from 'vitest'

it('leaves out hints that only newer drivers know, and nothing else', async () => {
  const script = pathToFileURL(join(__dirname, '..', '..', 'scripts', 'build-ptx.mjs')).href
  const { isNewerHint } = (await import(script)) as { isNewerHint: (line: string) => boolean }
  expect(isNewerHint('\t.pragma "used_bytes_mask 15";')).toBe(true)
  expect(isNewerHint('.pragma "used_bytes_mask 0xf0";')).toBe(true)
  for (const line of ['\t.pragma "nounroll";', '\tld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1];', ''])
    expect(isNewerHint(line)).toBe(false)
})
