/** What reads .npz archives, put into one file by the build: see lib/server/vendored.ts. */
export { type Entry, open, type ZipFile } from 'yauzl'
