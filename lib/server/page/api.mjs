/** Requests to the server that sent this page, and no other. */

// the page lies at the server's base path
const base = new URL('.', document.baseURI).href.replace(/\/$/, '')

export const origin = base

let key = sessionStorage.getItem('paligemma-key') ?? ''

export function useKey(text) {
  key = text
  sessionStorage.setItem('paligemma-key', text)
}

export class RequestError extends Error {
  constructor(status, { message, code } = {}) {
    super(message ?? `The server answered ${status}`)
    this.status = status
    this.code = code
  }
}

async function request(path, options = {}) {
  const headers = { ...options.headers, ...(key && { authorization: `Bearer ${key}` }) }
  const response = await fetch(base + path, { ...options, headers })
  if (response.ok) return response
  const body = await response.json().catch(() => ({}))
  throw new RequestError(response.status, body.error)
}

const post = async (path, body, signal) =>
  await request(path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal
  })

export async function listModels() {
  return (await (await request('/v1/models')).json()).data.map(({ id }) => id)
}

export async function dataUrl(blob) {
  return await new Promise((resolve, reject) => {
    const reader = new FileReader()
    reader.onload = () => resolve(reader.result)
    reader.onerror = () => reject(reader.error)
    reader.readAsDataURL(blob)
  })
}

/** A prompt about a picture; `onToken` gets the tokens as they come. */
export async function generate({ prompt, image, options, signal, onToken }) {
  const content = [{ type: 'text', text: prompt }]
  if (image) content.push({ type: 'image_url', image_url: { url: await dataUrl(image) } })
  const body = {
    ...options,
    messages: [{ role: 'user', content }],
    stream: true,
    stream_options: { include_usage: true },
    logprobs: true,
    top_logprobs: 5
  }
  const response = await post('/v1/chat/completions', body, signal)
  const result = { text: '', tokens: [], finish_reason: undefined, usage: undefined, timings: undefined }
  for await (const event of events(response.body)) {
    if (event.error) throw new RequestError(200, event.error)
    if (event.usage) result.usage = event.usage
    if (event.timings) result.timings = event.timings
    const [choice] = event.choices ?? []
    if (!choice) continue
    if (choice.finish_reason) result.finish_reason = choice.finish_reason
    const text = choice.delta?.content ?? ''
    const token = choice.logprobs?.content?.[0]
    if (text === '' && !token) continue
    result.text += text
    if (token) result.tokens.push({ text: token.token, logprob: token.logprob, top: token.top_logprobs })
    onToken?.(result)
  }
  return result
}

/** Server-sent events, each parsed. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader()
  let rest = ''
  for (;;) {
    const { done, value } = await reader.read()
    if (done) return
    rest += value
    const parts = rest.split('\n\n')
    rest = parts.pop()
    for (const part of parts) {
      const data = part.replace(/^data: /, '')
      if (data !== '[DONE]') yield JSON.parse(data)
    }
  }
}

/** Objects of a picture: kind "detect" or "segment"; `onObject` gets what there is as each comes. */
export async function find({ kind, labels, image, options, signal, onObject }) {
  const body = { ...options, labels, image: await dataUrl(image), logprobs: true, stream: true }
  const response = await post(`/v1/${kind}`, body, signal)
  const objects = []
  let rest
  for await (const event of events(response.body)) {
    if (event.error) throw new RequestError(200, event.error)
    if (event.object) {
      objects.push(event.object)
      onObject?.([...objects])
    } else rest = event
  }
  return { objects, ...rest }
}

/** Where the objects are that a free prompt's text names. */
export async function parse({ text, image, model, signal }) {
  const body = { text, image: await dataUrl(image), model }
  const { objects } = await (await post('/v1/parse', body, signal)).json()
  return objects.filter(({ valid }) => valid).map((object) => ({ score: 1, ...object }))
}
