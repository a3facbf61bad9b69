/** What reads data.yaml, put into one file by the build: see lib/server/vendored.ts. */
export { parse } from 'yaml'
