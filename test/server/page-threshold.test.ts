/** The page's own threshold: it loads no library, so the number stands there a second time. */
import { expect, it } from 'vitest'
import { recommendedMinScore } from '../../lib/api/tasks/tasks'

const { defaultThreshold } = (await import(new URL('../../lib/server/page/tasks.mjs', import.meta.url).href)) as {
  defaultThreshold: (task: { kind?: string }, values: { labels: string }) => number
}

it('is the one that the library recommends', () => {
  expect(defaultThreshold({ kind: 'detect' }, { labels: 'cow' })).toBe(recommendedMinScore('cow'))
  expect(defaultThreshold({ kind: 'segment' }, { labels: 'cow ; boat' })).toBe(recommendedMinScore(['cow', 'boat']))
  expect(defaultThreshold({}, { labels: '' })).toBe(0)
})
