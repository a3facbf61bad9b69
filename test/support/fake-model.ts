/** What tests of a model over a made-up engine share. */
import { afterEach, beforeEach, expect, vi } from 'vitest'
import { openModel } from '../../lib/api/load-model'
import type { PaliGemma } from '../../lib/api/model'
import type { LoadOptions } from '../../lib/api/options/options'
import { FakeNative, type Script } from './fake-native'

export const open = async (fake: FakeNative, options: Partial<LoadOptions> = {}): Promise<PaliGemma> =>
  await openModel(fake.binding, { model: 'm.gguf', ...options })
export const scripted = (...script: Script): FakeNative => new FakeNative(() => script)
export const failure = (code: string, message = 'x'): Error & { code: string } =>
  Object.assign(new Error(message), { code })
export const endless: Script = Array.from({ length: 2000 }, (_, i) => (i % 2 ? 'a' : 1))

/** No test may leave a rejection that nobody takes. */
export function refuseUnhandled(): void {
  const unhandled = vi.fn()
  beforeEach(() => {
    process.on('unhandledRejection', unhandled)
  })
  afterEach(async () => {
    await new Promise((resolve) => setTimeout(resolve, 5))
    process.off('unhandledRejection', unhandled)
    expect(unhandled).not.toHaveBeenCalled()
  })
}
