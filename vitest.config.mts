import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'

// `unit` needs no addon; `addon` (*.addon.test.ts) runs against the built one; `package` packs and installs, `long`
// waits or computes for long. Sources are imported from lib/ directly. Processes instead of worker threads: a crash of
// the addon then fails one file, not the whole run.
export default defineConfig({
  test: {
    // One more than vitest's own choice: many tests wait for a process, a file or a connection.
    maxWorkers: Math.max(2, availableParallelism()),
    // What npm run test:quick leaves out.
    tags: [
      { name: 'slow', description: 'waits, starts processes or computes for seconds' },
      { name: 'alone', description: 'replaces modules, and so needs a process of its own' }
    ],
    projects: [
      {
        test: {
          name: 'unit',
          setupFiles: ['test/support/equal-arrays.ts'],
          include: ['test/**/*.test.ts'],
          exclude: [
            ...['test/**/*.addon.test.ts', 'test/**/*.emulated.test.ts', 'test/**/*.long.test.ts'],
            ...['test/package/**', 'test/frameworks/**']
          ],
          // ffmpeg's first start on a busy machine takes longer than the ten seconds that hooks have unasked
          testTimeout: 60_000,
          hookTimeout: 120_000
        }
      },
      {
        test: {
          name: 'addon',
          setupFiles: ['test/support/equal-arrays.ts'],
          include: ['test/**/*.addon.test.ts'],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          pool: 'forks'
        }
      },
      {
        test: {
          name: 'package',
          include: ['test/package/**/*.test.ts'],
          exclude: ['test/**/*.long.test.ts'],
          testTimeout: 300_000,
          hookTimeout: 300_000,
          pool: 'forks'
        }
      },
      {
        // kills, browsers, Redis, trained models, other compilers: npm run test:long
        test: {
          name: 'long',
          include: ['test/**/*.long.test.ts'],
          testTimeout: 300_000,
          hookTimeout: 120_000,
          pool: 'forks'
        }
      },
      {
        // needs an engine with an emulated GPU: npm run test:gpu
        test: {
          name: 'gpu',
          include: ['test/**/*.emulated.test.ts'],
          testTimeout: 300_000,
          hookTimeout: 300_000,
          pool: 'forks'
        }
      },
      {
        // installs tools from the registry, minutes: npm run test:frameworks
        test: {
          name: 'frameworks',
          include: ['test/frameworks/**/*.test.ts'],
          testTimeout: 600_000,
          hookTimeout: 600_000,
          pool: 'forks'
        }
      }
    ]
  }
})
