/** The packages that the command is made of, put into one file by the build: see lib/server/vendored.ts. */
export { Command, CommanderError, Help, InvalidArgumentError, Option } from 'commander'
