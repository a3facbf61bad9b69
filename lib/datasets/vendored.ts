/** What reads data.yaml and its patterns, put into one file by the build: see lib/server/vendored.ts. */
export { glob } from 'tinyglobby'
export { parse } from 'yaml'
