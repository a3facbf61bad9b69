import { defineEventHandler, readRawBody } from 'h3'
import { loadModel } from 'node-paligemma'

// one model for all requests of the process
let model
export default defineEventHandler(async (event) => {
  const image = await readRawBody(event, false)
  model ??= loadModel(process.env.MODEL)
  return (await (await model).generate({ image, prompt: 'caption en' })).text
})
