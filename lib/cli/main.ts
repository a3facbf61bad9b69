#!/usr/bin/env node
/** The `paligemma` command. */
import { runCommand } from './program'

runCommand(process.argv.slice(2)).then(
  (code) => {
    process.exitCode = code
  },
  (error: unknown) => {
    console.error(error)
    process.exitCode = 1
  }
)
