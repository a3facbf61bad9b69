/** What finds files by patterns, put into one file by the build: see lib/server/vendored.ts. */
export { glob, isDynamicPattern } from 'tinyglobby'
