import { defineConfig } from 'vitest/config'

// `unit` needs no addon; `native` runs against the built one. Sources are imported from lib/ directly.
export default defineConfig({
  test: {
    projects: [
      { test: { name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 30_000 } },
      { test: { name: 'native', include: ['test/native/**/*.test.ts'], testTimeout: 120_000, hookTimeout: 120_000, pool: 'forks' } }
    ]
  }
})
