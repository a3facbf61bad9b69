/** A picture with its result: text whose tokens tell their probabilities, boxes, times. */
import { at, colours, draw } from './objects.mjs'

export const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties)
  made.append(...children.filter((child) => child !== undefined && child !== null))
  return made
}

let names = 0

export class Card {
  result = undefined
  error = undefined
  threshold = 0

  constructor(blob, { onRemove }) {
    this.blob = blob
    this.name = blob.name && blob.name !== 'image.png' ? blob.name : `picture-${++names}.png`
    this.url = URL.createObjectURL(blob)
    this.image = element('img', { src: this.url, alt: `The picture ${this.name}` })
    this.canvas = element('canvas', { hidden: true })
    this.canvas.setAttribute('aria-hidden', 'true')
    this.output = element('div', { className: 'output' })
    const remove = element('button', { type: 'button', className: 'quiet', textContent: '✕', onclick: onRemove })
    remove.setAttribute('aria-label', `Remove ${this.name}`)
    this.element = element(
      'figure',
      { className: 'card' },
      element('div', { className: 'frame' }, this.image, this.canvas),
      element('figcaption', {}, element('div', { className: 'name' }, this.name, remove), this.output)
    )
    this.ready = this.image.decode().catch(() => {}) // not every format that the server reads is shown here
    this.canvas.addEventListener('pointermove', (event) => this.point(event))
    this.canvas.addEventListener('pointerleave', () => this.mark(undefined))
  }

  get width() {
    return this.image.naturalWidth
  }

  get height() {
    return this.image.naturalHeight
  }

  /** Of the result, what the threshold leaves. */
  get shown() {
    return (this.result?.objects ?? []).filter(({ score }) => score >= this.threshold)
  }

  busy(is) {
    this.element.classList.toggle('busy', is)
    this.element.setAttribute('aria-busy', String(is))
  }

  begin() {
    this.result = undefined
    this.error = undefined
    this.busy(true)
    this.render()
  }

  /** Text so far, or objects so far. */
  progress(result) {
    this.result = result
    if (result.objects) this.render()
    else this.renderText()
  }

  end(result, error) {
    this.result = result
    this.error = error
    this.busy(false)
    this.render()
  }

  setThreshold(value) {
    this.threshold = value
    this.render()
  }

  render() {
    this.output.replaceChildren()
    if (this.error) this.output.append(element('p', { className: 'error', textContent: this.error }))
    this.drawObjects()
    if (!this.result) return
    this.renderText()
    this.output.append(...this.details())
  }

  renderText() {
    const { tokens, text, objects } = this.result
    const old = this.output.querySelector('.text')
    if (objects?.length > 0 || (objects && text === undefined)) return old?.remove()
    const line = element('p', { className: 'text' })
    line.append(...(tokens?.length > 0 ? tokens.map(tokenSpan) : [text || (objects ? 'nothing' : '')]))
    if (old) old.replaceWith(line)
    else this.output.prepend(line)
  }

  details() {
    const { tokens, objects = [], timings, usage, finish_reason: reason } = this.result
    const parts = []
    if (objects.length > 0) parts.push(this.objectList())
    else if (this.result.labels) parts.push(element('p', { className: 'hint', textContent: 'Nothing found.' }))
    if (reason === 'length')
      parts.push(element('p', { className: 'hint', textContent: 'Cut: the longest answer was reached.' }))
    parts.push(element('p', { className: 'times', textContent: times(timings, usage, tokens) }))
    if (tokens?.length > 0) parts.push(tokenTable(tokens))
    return parts
  }

  objectList() {
    const colourOf = colours(this.result.objects)
    const list = element('ul', { className: 'objects' })
    for (const object of this.shown) {
      const swatch = element('span', { className: 'swatch' })
      swatch.style.background = colourOf(object.label)
      const item = element(
        'li',
        { onpointerenter: () => this.mark(object), onpointerleave: () => this.mark(undefined) },
        swatch,
        object.label || '(no name)',
        element('span', { className: 'score', textContent: object.score.toFixed(2) })
      )
      list.append(item)
    }
    const hidden = this.result.objects.length - this.shown.length
    if (hidden > 0) list.append(element('li', { className: 'hint', textContent: `${hidden} below the threshold` }))
    return list
  }

  drawObjects(marked) {
    const { shown, width, height } = this
    this.canvas.hidden = shown.length === 0 || width === 0
    if (!this.canvas.hidden) draw(this.canvas, shown, { width, height, marked })
  }

  mark(object) {
    if (object === this.marked) return
    this.marked = object
    this.drawObjects(object)
  }

  point({ offsetX, offsetY }) {
    const scale = this.width / this.canvas.clientWidth
    this.mark(at(this.shown, offsetX * scale, offsetY * scale))
  }

  /** A small copy for the history. */
  thumbnail() {
    if (this.width === 0) return ''
    const side = 96
    const small = element('canvas', { width: side, height: side })
    const cut = Math.min(this.width, this.height)
    const place = [(this.width - cut) / 2, (this.height - cut) / 2, cut, cut, 0, 0, side, side]
    small.getContext('2d').drawImage(this.image, ...place)
    return small.toDataURL('image/jpeg', 0.7)
  }
}

const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`
const visible = (text) => text.replaceAll('\n', '⏎') || '(control)'

function tokenSpan(token) {
  const span = element('span', { className: 'token', textContent: token.text })
  if (token.logprob === null || token.logprob === undefined) return span
  // the less certain, the more colour
  span.style.setProperty('--p', String(Math.min(1, 1.2 * (1 - Math.exp(token.logprob)))))
  span.tip = () =>
    [
      `${visible(token.text)}  ${percent(token.logprob)}`,
      ...(token.top ?? []).map((other) => `  ${percent(other.logprob).padStart(7)}  ${visible(other.token)}`)
    ].join('\n')
  return span
}

function tokenTable(tokens) {
  const head = element(
    'tr',
    {},
    ...['Token', 'Probability', 'Instead'].map((text) => element('th', { textContent: text }))
  )
  const rows = tokens.map((token) =>
    element(
      'tr',
      {},
      element('td', { textContent: visible(token.text) }),
      element('td', { textContent: token.logprob === null ? '' : percent(token.logprob) }),
      element('td', {
        textContent: (token.top ?? [])
          .filter((other) => other.token !== token.text)
          .slice(0, 3)
          .map((other) => `${visible(other.token).trim()} ${percent(other.logprob)}`)
          .join(', ')
      })
    )
  )
  const table = element('table', {}, element('thead', {}, head), element('tbody', {}, ...rows))
  const scroll = element('div', { className: 'scroll', tabIndex: 0 }, table)
  scroll.setAttribute('role', 'region')
  scroll.setAttribute('aria-label', 'Tokens and their probabilities')
  return element('details', {}, element('summary', { textContent: `${tokens.length} tokens` }), scroll)
}

function times(timings, usage, tokens) {
  if (!timings) return ''
  const ms = (value) => (value >= 9950 ? `${(value / 1000).toFixed(1)} s` : `${Math.round(value)} ms`)
  const parts = [`first token ${ms(timings.first_token_ms)}`]
  if (timings.vision_ms > 0) parts.push(`picture ${ms(timings.vision_ms)}`)
  if (timings.total_ms !== undefined) parts.push(`all ${ms(timings.total_ms)}`)
  if (timings.tokens_per_second > 0) parts.push(`${timings.tokens_per_second.toFixed(0)} tokens/s`)
  if (usage) parts.push(`${usage.prompt_tokens} + ${usage.completion_tokens} tokens`)
  else if (tokens) parts.push(`${tokens.length} tokens`)
  return parts.join(' · ')
}
