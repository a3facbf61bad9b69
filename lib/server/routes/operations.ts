/** For whoever runs the server: is it alive, is it ready, how is it doing. */
import * as z from '../schemas/vendored'
import { packageVersion } from '../../base/package-files'
import { json, route, type Route } from '../call'

const health = z.object({ status: z.string(), version: z.string() }).meta({ id: 'Health' })

export const healthRoute: Route = route({
  method: 'get',
  path: '/health',
  summary: '200 while the process answers',
  tag: 'Operations',
  response: health,
  open: true,
  handle: async () => json({ status: 'ok', version: packageVersion() })
})

/** `state`: "ready", or what it is instead. */
export const readyRoute = (state: () => string): Route =>
  route({
    method: 'get',
    path: '/ready',
    summary: '200 once the models are loaded; 503 before, and while the server shuts down',
    tag: 'Operations',
    response: z.object({ status: z.string() }).meta({ id: 'Ready' }),
    open: true,
    handle: async () => json({ status: state() }, state() === 'ready' ? 200 : 503)
  })

export const metricsRoute: Route = route({
  method: 'get',
  path: '/metrics',
  summary: 'Metrics for Prometheus',
  tag: 'Operations',
  handle: async ({ services: { metrics } }) =>
    new Response(await metrics.text(), { headers: { 'content-type': metrics.contentType } })
})
