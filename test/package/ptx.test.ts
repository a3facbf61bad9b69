/** How scripts/build-ptx.mjs packs texts. The same ones in native/test/test_cuda_driver.cpp, which unpacks. */
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, it } from 'vitest'

it('counts registers back from the latest of their kind', async () => {
  const script = pathToFileURL(join(__dirname, '..', '..', 'scripts', 'build-ptx.mjs')).href
  const { countedBack } = (await import(script)) as { countedBack: (text: string) => string }
  const text = '.reg .f32 %f<4>; mov %r1, %tid.x; fma %f1, %f1, %f1; fma %f2, %f1, %r1; @%p1 %rd12;'
  expect(countedBack(text)).toBe(
    '.reg .f32 %f<4>; mov %r-1, %tid.x; fma %f-1, %f0, %f0; fma %f-1, %f1, %r0; @%p-1 %rd-12;'
  )
  expect(countedBack('100 % sure: 5%, %')).toBe('100 % sure: 5%, %')
})

it('leaves out hints that only newer drivers know, and nothing else', async () => {
  const script = pathToFileURL(join(__dirname, '..', '..', 'scripts', 'build-ptx.mjs')).href
  const { isNewerHint } = (await import(script)) as { isNewerHint: (line: string) => boolean }
  expect(isNewerHint('\t.pragma "used_bytes_mask 15";')).toBe(true)
  expect(isNewerHint('.pragma "used_bytes_mask 0xf0";')).toBe(true)
  for (const line of ['\t.pragma "nounroll";', '\tld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%rd1];', ''])
    expect(isNewerHint(line)).toBe(false)
})
