/** What was asked in this page, newest first, until it is closed. */
import { element } from './cards.mjs'
import { titleOf } from './tasks.mjs'

const most = 50

export class History {
  #entries = []

  constructor(list, empty, onChoose) {
    this.list = list
    this.empty = empty
    this.onChoose = onChoose
  }

  add(card, request) {
    const { blob, result, threshold } = card
    this.#entries.unshift({ blob, result, threshold, request, picture: card.thumbnail() })
    this.#entries.length = Math.min(this.#entries.length, most)
    this.empty.hidden = true
    this.list.replaceChildren(...this.#entries.map((entry) => this.#item(entry)))
  }

  #item(entry) {
    const { result, request, picture } = entry
    const text = result.labels ? result.objects.map(({ label }) => label).join(', ') || 'nothing found' : result.text
    const words = element('span', { textContent: titleOf(request.task, request.values) })
    words.append(element('small', { textContent: text }))
    const image = picture ? element('img', { src: picture, alt: '' }) : undefined
    return element('li', {}, element('button', { type: 'button', onclick: () => this.onChoose(entry) }, image, words))
  }
}
