/** The OpenAPI 3.1 document, made of the schemas that check the requests. */
import * as z from './schemas/vendored'
import { packageVersion } from '../base/package-files'
import { plainPath, type Route } from './call'
import { errorBody } from './schemas/common'

type Json = Record<string, unknown>

export function openApiDocument(routes: readonly Route[], { basePath = '', keys = false } = {}): Json {
  const schemas = new Schemas()
  const paths: Record<string, Json> = {}
  for (const route of routes) {
    const path = plainPath(route.path)
    paths[path] = { ...paths[path], [route.method]: operation(route, schemas, keys) }
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'node-paligemma',
      version: packageVersion(),
      description: 'PaliGemma 1 and 2: pictures and a prompt become text, boxes and masks.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' }
    },
    servers: [{ url: basePath || '/' }],
    paths,
    components: {
      schemas: schemas.all,
      ...(keys && { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } })
    }
  }
}

/** Schemas with a name stand under it, once. */
class Schemas {
  readonly all: Record<string, Json> = {}

  reference(schema: z.ZodType, io: 'input' | 'output'): Json {
    const {
      $schema: _,
      $defs = {},
      ...own
    } = z.toJSONSchema(schema, { io, unrepresentable: 'any', reused: 'inline' }) as Json
    for (const [name, definition] of Object.entries($defs as Record<string, Json>)) this.add(name, definition)
    const id = schema.meta()?.id
    if (typeof id !== 'string') return relocated(own)
    this.add(id, own)
    return { $ref: `#/components/schemas/${id}` }
  }

  private add(name: string, { id: _, ...schema }: Json): void {
    this.all[name] ??= relocated(schema)
  }
}

/** References into the schema's own definitions lead to the document's. */
const relocated = (schema: Json): Json =>
  JSON.parse(JSON.stringify(schema).replaceAll('"#/$defs/', '"#/components/schemas/')) as Json

function operation(route: Route, schemas: Schemas, keys: boolean): Json {
  const { body, response, params = {}, tag, summary, multipart, streams, open } = route
  const error = {
    description: 'What went wrong',
    content: { 'application/json': { schema: schemas.reference(errorBody, 'output') } }
  }
  const input = body && schemas.reference(body, 'input')
  return {
    summary,
    tags: [tag],
    operationId: `${route.method}${route.path.replace(/\W+(\w?)/g, (_, next: string) => next.toUpperCase())}`,
    ...(keys && !open && { security: [{ key: [] }] }),
    ...(Object.keys(params).length > 0 && {
      parameters: Object.entries(params).map(([name, description]) => ({
        name,
        in: 'path',
        required: true,
        description,
        schema: { type: 'string' }
      }))
    }),
    ...(input && {
      requestBody: {
        required: true,
        content: {
          'application/json': { schema: input },
          ...(multipart && {
            'multipart/form-data': { schema: withUploads(body, schemas) },
            'image/*': { schema: { description: 'The picture itself; the other fields stand in the query.' } }
          })
        }
      }
    }),
    responses: {
      200: {
        description: 'Done',
        ...(response
          ? {
              content: {
                'application/json': { schema: schemas.reference(response, 'output') },
                ...(streams && { 'text/event-stream': { schema: { type: 'string' } } })
              }
            }
          : { content: { 'text/plain': { schema: { type: 'string' } } } })
      },
      default: error
    }
  }
}

/** The same fields, with pictures as files. */
function withUploads(body: z.ZodType, schemas: Schemas): Json {
  const { id } = body.meta() as { id: string }
  const schema = JSON.parse(JSON.stringify(schemas.all[id])) as { properties: Record<string, Json> }
  const file = { type: 'string', contentMediaType: 'application/octet-stream' }
  const { image, images } = schema.properties
  if (image) schema.properties['image'] = file
  if (images) schema.properties['images'] = { type: 'array', items: file }
  return schema
}
