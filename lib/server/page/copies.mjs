/** What was asked and what came, for the clipboard. */
import { origin } from './api.mjs'
import { areaOf } from './objects.mjs'
import { labelsOf } from './tasks.mjs'

const quoted = (text) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`

function js({ task, values, options, name }) {
  const given = {
    ...(options.max_tokens && { maxTokens: options.max_tokens }),
    ...pick(options, ['temperature', 'seed'])
  }
  const more = Object.keys(given).length > 0 ? `, ${JSON.stringify(given)}` : ''
  const prompted = () => `image: ${quoted(name)}, prompt: ${quoted(task.prompt(values))}`
  const call = task.kind
    ? `await model.${task.kind}(${quoted(name)}, ${JSON.stringify(labelsOf(values.labels))}${more})`
    : `await model.generate({ ${prompted()}${more && `, ...${more.slice(2)}`} })`
  return [
    "import { loadModel } from 'node-paligemma'",
    '',
    `const model = await loadModel(${quoted(options.model)})`,
    `const result = ${call}`,
    'console.log(result)',
    'await model.dispose()'
  ].join('\n')
}

const pick = (object, keys) =>
  Object.fromEntries(keys.filter((key) => object[key] !== undefined).map((key) => [key, object[key]]))

function curl({ task, values, options, name }) {
  const sampling = Object.entries(options).map(([key, value]) => `-F ${shell(`${key}=${value}`)}`)
  if (task.kind) {
    const fields = [`image=@${name}`, `labels=${values.labels}`].map((field) => `-F ${shell(field)}`)
    return ['curl', ...fields, ...sampling, shell(`${origin}/v1/${task.kind}`)].join(' ')
  }
  const body = JSON.stringify({ ...options, messages: messages(task.prompt(values), 'data:image/jpeg;base64,%s') })
  return [
    `printf ${shell(body)} "$(base64 < ${shell(name)} | tr -d '\\n')" |`,
    `  curl -H 'content-type: application/json' --data-binary @- ${shell(`${origin}/v1/chat/completions`)}`
  ].join('\n')
}

const messages = (prompt, url) => [
  {
    role: 'user',
    content: [
      { type: 'text', text: prompt },
      { type: 'image_url', image_url: { url } }
    ]
  }
]

function openai({ task, values, options, name }) {
  const prompt = task.kind ? `${task.kind} ${labelsOf(values.labels).join(' ; ')}` : task.prompt(values)
  const extra = task.kind ? { constrain: task.kind } : {}
  const body = JSON.stringify({ ...options, ...extra, messages: messages(prompt, 'URL') }, null, 2).replace(
    '"URL"',
    'url'
  )
  return [
    "import OpenAI from 'openai'",
    "import { readFile } from 'node:fs/promises'",
    '',
    `const client = new OpenAI({ baseURL: ${quoted(`${origin}/v1`)}, apiKey: process.env.PALIGEMMA_KEY ?? 'none' })`,
    `const url = 'data:image/jpeg;base64,' + (await readFile(${quoted(name)}, 'base64'))`,
    `const completion = await client.chat.completions.create(${body})`,
    'console.log(completion.choices[0].message.content)'
  ].join('\n')
}

const json = (run) =>
  JSON.stringify(
    run.pictures.map(({ name, result, error }) => ({ image: name, ...(error ? { error } : result) })),
    null,
    2
  )

/** A COCO data set of what is shown. */
function coco(run) {
  const categories = []
  const annotations = []
  const idOf = (label) => {
    if (!categories.includes(label)) categories.push(label)
    return categories.indexOf(label) + 1
  }
  const images = run.pictures.map(({ name, width, height, shown }, i) => {
    for (const { label, score, box, mask } of shown)
      annotations.push({
        id: annotations.length + 1,
        image_id: i + 1,
        category_id: idOf(label),
        bbox: [box.x, box.y, box.width, box.height],
        area: mask ? areaOf(mask.counts) : box.width * box.height,
        iscrowd: 0,
        score,
        ...(mask && { segmentation: mask })
      })
    return { id: i + 1, file_name: name, width, height }
  })
  return JSON.stringify(
    { images, annotations, categories: categories.map((name, i) => ({ id: i + 1, name })) },
    null,
    2
  )
}

const kinds = { js, curl, openai, json, coco }

export const textOf = (kind, run) => kinds[kind]({ ...run, name: run.pictures[0]?.name ?? 'picture.jpg' })
