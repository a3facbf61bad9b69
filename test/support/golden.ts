/**
 * Where the reference data lies. All of it is the folder `shared` beside the repository, or what PALIGEMMA_SHARED
 * names; a part of it that is small enough travels in test/fixtures/golden, so that a bare clone proves itself too.
 */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'

const whole = join(process.env.PALIGEMMA_SHARED ?? resolve(__dirname, '..', '..', '..', 'shared'), 'golden')
const part = resolve(__dirname, '..', 'fixtures', 'golden')

/** The path of reference data: from the whole set where that is present, else from the part in the repository. */
export const golden = (...parts: string[]): string => {
  const path = join(whole, ...parts)
  const own = join(part, ...parts)
  return existsSync(path) || !existsSync(own) ? path : own
}

/** True where the whole set is present; tests that need it skip elsewhere. */
export const hasGolden = existsSync(whole)

/** True where these files or folders ("hf/pg1-tiny") are present, in the whole set or in the repository's part. */
export const hasGoldens = (...names: string[]): boolean => names.every((name) => existsSync(golden(...name.split('/'))))
