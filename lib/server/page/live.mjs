/** The page of `paligemma watch --page`: what the command sees, as it says it. */
import { element } from './cards.mjs'
import { draw } from './objects.mjs'
import { followTheme } from './theme.mjs'

const $ = (id) => document.getElementById(id)
const keptEvents = 50

followTheme($('theme'))

let waiting
let showing = false

/** The newest alone: a browser that is slow skips what it did not get to. */
async function take(seen) {
  waiting = seen
  if (showing) return
  showing = true
  for (let next = waiting; next; next = waiting) {
    waiting = undefined
    await show(next)
  }
  showing = false
}

async function show({ source, picture, width, height, objects, text, figures, entered, left, time }) {
  $('source').textContent = source
  const image = new Image()
  image.src = picture
  await image.decode().catch(() => {})
  $('picture').src = picture
  $('picture').hidden = false
  draw($('overlay'), objects, { width, height })
  $('text').textContent = text
  $('figures').textContent = `${new Date(time).toLocaleTimeString()} · ${figures}`
  $('found').replaceChildren(...objects.map((object) => element('li', { textContent: nameOf(object) })))
  const events = [...entered.map((one) => ['came', one]), ...left.map((one) => ['went', one])]
  for (const [what, one] of events)
    $('events').prepend(
      element('li', {
        textContent: `${new Date(time).toLocaleTimeString()} ${nameOf({ ...one, score: undefined })} ${what}`
      })
    )
  while ($('events').children.length > keptEvents) $('events').lastChild.remove()
}

const nameOf = ({ id, label, score }) =>
  [id === undefined ? '' : `#${id}`, label, score === undefined ? '' : score.toFixed(2)].filter(Boolean).join(' ')

const events = new EventSource('live')
events.onopen = () => {
  $('status').textContent = ''
}
events.onmessage = ({ data }) => void take(JSON.parse(data))
events.addEventListener('end', () => {
  events.close()
  $('status').textContent = 'The command has ended.'
})
events.onerror = () => {
  $('status').textContent = 'The command does not answer; it may have ended.'
}
