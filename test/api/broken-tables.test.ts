/** Kernels that compute wrongly here are not used, and people hear of it once. */
import { expect, it } from 'vitest'
import { openModel } from '../../lib/api/load-model'
import { FakeNative } from '../support/fake-native'

it('warns once of tables that were passed over', async () => {
  const fake = new FakeNative()
  const binding = () => ({
    ...fake.binding(),
    cpuInfo: () => ({
      isa: 'avx2',
      supported: ['scalar', 'avx2', 'avx512vnni'],
      threads: 1,
      broken: [{ isa: 'avx512vnni', kernels: ['tile8', 'dotRows8'] }]
    })
  })
  const warnings: (Error & { code?: string })[] = []
  const listen = (warning: Error) => warnings.push(warning)
  process.on('warning', listen)
  for (let i = 0; i < 2; i++) await (await openModel(binding, { model: __filename })).dispose()
  await new Promise((resolve) => setImmediate(resolve))
  process.off('warning', listen)
  expect(warnings).toMatchObject([
    { name: 'PaliGemmaWarning', code: 'PALIGEMMA_KERNELS', message: expect.stringMatching(/avx512vnni.*tile8.*avx2/) }
  ])
})
