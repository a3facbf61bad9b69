/** `/v1/models` */
import * as z from '../schemas/vendored'
import { json, route, type Route } from '../call'
import type { Models } from '../models'

const model = z
  .object({
    id: z.string(),
    object: z.literal('model'),
    created: z.int(),
    owned_by: z.string(),
    loaded: z.boolean()
  })
  .meta({ id: 'Model' })

const describe = (models: Models, id: string): z.output<typeof model> => ({
  id,
  object: 'model',
  created: models.startedAt,
  owned_by: 'node-paligemma',
  loaded: models.isLoaded(id)
})

export const modelRoutes: Route[] = [
  route({
    method: 'get',
    path: '/v1/models',
    summary: 'The models of this server',
    tag: 'OpenAI',
    response: z.object({ object: z.literal('list'), data: z.array(model) }).meta({ id: 'Models' }),
    handle: async ({ services: { models } }) =>
      json({ object: 'list', data: models.names.map((id) => describe(models, id)) })
  }),
  route({
    method: 'get',
    // names of the hub have a slash
    path: '/v1/models/:id{.+}',
    summary: 'One of them',
    tag: 'OpenAI',
    params: { id: 'The name of a model' },
    response: model,
    handle: async ({ services: { models }, params }) => json(describe(models, models.nameOf(params['id'])))
  })
]
