/** What reads shards, put into one file by the build: see lib/server/vendored.ts. */
export { extract, type Extract } from 'tar-stream'
