#!/usr/bin/env node
/** The `paligemma` command. */
import { execute } from './program'
import { withProcess } from './streams'

withProcess(async (context) => await execute(process.argv.slice(2), context)).then(
  (code) => {
    process.exitCode = code
  },
  (error: unknown) => {
    console.error(error)
    process.exitCode = 1
  }
)
