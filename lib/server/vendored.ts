/**
 * The packages that the server is made of. The build puts what is used of them into this one file
 * (scripts/bundle-vendored.mjs), so that whoever installs the package need not install them: 13 MB for what is 0.1 MB
 * here.
 */
export { getRequestListener } from '@hono/node-server'
export { Hono, type Context } from 'hono'
export { cors } from 'hono/cors'
export { Counter, Gauge, Histogram, Registry } from 'prom-client'
