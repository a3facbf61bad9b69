/** Where the reference data lies; see its README files. */
import { existsSync } from 'node:fs'
import { join, resolve } from 'node:path'

const root = process.env.PALIGEMMA_SHARED ?? resolve(__dirname, '..', '..', '..', 'shared')
const folder = join(root, 'golden')

/** False where there is none: tests skip. In CI that is an error. */
export const hasGolden = existsSync(folder)
if (!hasGolden && process.env.CI) throw new Error(`No reference data at ${folder}; set PALIGEMMA_SHARED`)

export const golden = (...parts: string[]): string => join(folder, ...parts)
