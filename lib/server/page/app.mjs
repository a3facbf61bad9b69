/** The page: pictures in, a task, results out. */
import { find, generate, listModels, parse, RequestError, useKey } from './api.mjs'
import { Camera } from './camera.mjs'
import { Changes } from './change.mjs'
import { Card, element } from './cards.mjs'
import { textOf } from './copies.mjs'
import { History } from './history.mjs'
import { draw } from './objects.mjs'
import { defaultThreshold, labelsOf, tasks } from './tasks.mjs'
import { followTheme } from './theme.mjs'

const $ = (id) => document.getElementById(id)
const atOnce = 4

const state = { task: tasks[0], cards: [], running: undefined, run: undefined }
const camera = new Camera($('video'))
const history = new History($('history'), $('history-empty'), restore)

// ---- tabs and fields

const values = {} // of all tasks, by field: they stay when the tab changes

function showTabs() {
  $('tabs').replaceChildren(
    ...tasks.map((task) => {
      const selected = task === state.task
      const tab = element('button', { type: 'button', id: `tab-${task.id}`, textContent: task.name })
      tab.setAttribute('role', 'tab')
      tab.setAttribute('aria-selected', String(selected))
      tab.setAttribute('aria-controls', 'panel')
      tab.tabIndex = selected ? 0 : -1
      tab.onclick = () => choose(task)
      return tab
    })
  )
  $('panel').setAttribute('aria-labelledby', `tab-${state.task.id}`)
}

function choose(task) {
  state.task = task
  showTabs()
  showFields()
}

$('tabs').addEventListener('keydown', (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key]
  const index = tasks.indexOf(state.task)
  const next = event.key === 'Home' ? 0 : event.key === 'End' ? tasks.length - 1 : step && index + step
  if (next === undefined) return
  event.preventDefault()
  choose(tasks[(next + tasks.length) % tasks.length])
  $(`tab-${state.task.id}`).focus()
})

function showFields() {
  $('fields').replaceChildren(
    ...state.task.fields.map(({ name, label, choices, placeholder, required, long }) => {
      const input = choices
        ? element('select', {}, ...choices.map(([value, text]) => element('option', { value, textContent: text })))
        : element(long ? 'textarea' : 'input', { placeholder: placeholder ?? '', required: required ?? false })
      input.name = name
      if (values[name] !== undefined) input.value = values[name]
      else values[name] = input.value
      input.oninput = () => {
        values[name] = input.value
      }
      return element('label', {}, label, input)
    })
  )
}

function options() {
  const number = (name) => {
    const { value } = $('form').elements[name]
    return value === '' ? undefined : Number(value)
  }
  const given = { max_tokens: number('max_tokens'), temperature: number('temperature'), seed: number('seed') }
  const set = Object.entries(given).filter(([, value]) => value !== undefined)
  return { model: $('model').value, ...Object.fromEntries(set) }
}

// ---- pictures

function addFiles(files) {
  const pictures = [...files].filter(
    ({ type, name }) => type.startsWith('image/') || /\.(ppm|pgm|tiff?|bmp)$/i.test(name)
  )
  if (pictures.length === 0) return say('No picture among these files')
  for (const blob of pictures) {
    const card = new Card(blob, { onRemove: () => remove(card) })
    state.cards.push(card)
  }
  showCards()
  say(`${pictures.length === 1 ? pictures[0].name || 'A picture' : `${pictures.length} pictures`} added`)
}

function remove(card) {
  state.cards = state.cards.filter((other) => other !== card)
  showCards()
  $('pick').focus()
}

function showCards() {
  $('cards').replaceChildren(...state.cards.map((card) => card.element))
  $('cards').classList.toggle('single', state.cards.length === 1)
  $('bar').hidden = state.cards.length === 0
  showThreshold()
}

function showThreshold() {
  $('threshold-row').hidden = !state.cards.some((card) => (card.result?.objects?.length ?? 0) > 0)
}

$('pick').onclick = () => $('files').click()
for (const input of [$('files'), $('capture')])
  input.onchange = () => {
    addFiles(input.files)
    input.value = ''
  }
$('clear').onclick = () => {
  state.cards = []
  showCards()
}
$('example').onclick = async () => {
  const blob = await (await fetch('page/example.png')).blob()
  addFiles([new File([blob], 'shapes.png', { type: 'image/png' })])
}
document.addEventListener('paste', (event) => {
  const { files } = event.clipboardData
  if (files.length > 0) addFiles(files)
})
document.addEventListener('dragover', (event) => {
  event.preventDefault()
  document.body.classList.add('dragging')
})
document.addEventListener('dragleave', (event) => {
  if (!event.relatedTarget) document.body.classList.remove('dragging')
})
document.addEventListener('drop', (event) => {
  event.preventDefault()
  document.body.classList.remove('dragging')
  addFiles(event.dataTransfer.files)
})

// ---- running

async function ask(blob, { task, values, options }, signal, onProgress) {
  if (task.kind) {
    const labels = labelsOf(values.labels)
    const onObject = (objects) => onProgress?.({ labels, objects })
    return { labels, ...(await find({ kind: task.kind, labels, image: blob, options, signal, onObject })) }
  }
  const prompt = task.prompt(values)
  const result = await generate({ prompt, image: blob, options, signal, onToken: onProgress })
  const names = blob && /<loc\d{4}>/.test(result.text)
  result.objects = names ? await parse({ text: result.text, image: blob, model: options.model, signal }) : []
  return result
}

$('form').addEventListener('submit', (event) => {
  event.preventDefault()
  void runAll()
})

async function runAll() {
  if (!$('form').reportValidity()) return
  if (state.cards.length === 0) {
    if (state.task.id !== 'free') return say('Add a picture first')
  }
  stop()
  const control = new AbortController()
  state.running = control
  const request = { task: state.task, values: { ...values }, options: options() }
  state.run = request
  setThreshold(defaultThreshold(request.task, request.values))
  $('stop').hidden = false
  const waiting = [...state.cards]
  for (const card of waiting) card.begin()
  const worker = async () => {
    for (let card = waiting.shift(); card; card = waiting.shift()) await runOne(card, request, control.signal)
  }
  await Promise.all(Array.from({ length: atOnce }, worker))
  if (state.running !== control) return
  state.running = undefined
  $('stop').hidden = true
  showThreshold()
  say(summary(), false)
}

async function runOne(card, request, signal) {
  try {
    await card.ready
    const result = await ask(card.blob, request, signal, (partial) => card.progress(partial))
    card.end(result)
    history.add(card, request)
  } catch (error) {
    card.end(card.result?.text ? card.result : undefined, signal.aborted ? 'Stopped.' : error.message)
    if (error instanceof RequestError && error.status === 401) $('key-dialog').showModal()
  }
  showThreshold()
}

/** For those who do not see the results come. */
function summary() {
  const failed = state.cards.filter(({ error }) => error).length
  if (state.cards.length > 1) return `${state.cards.length} pictures done${failed ? `, ${failed} failed` : ''}`
  const [{ result, error, shown }] = state.cards.length > 0 ? state.cards : [{ shown: [] }]
  if (error) return error
  if (result?.labels) return `${shown.length} found`
  return result?.text ? `Answer: ${result.text}` : 'Done'
}

function stop() {
  state.running?.abort()
  state.running = undefined
  $('stop').hidden = true
}

$('stop').onclick = stop
document.addEventListener('keydown', (event) => {
  if (event.key === 'Escape') stop()
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) void runAll()
})

function setThreshold(value) {
  $('threshold').value = String(value)
  $('threshold-value').value = value.toFixed(2)
  for (const card of state.cards) card.setThreshold(value)
}

$('threshold').oninput = () => setThreshold(Number($('threshold').value))

/** A run of the history, with its picture. */
function restore({ blob, result, request, threshold }) {
  const card = new Card(blob, { onRemove: () => remove(card) })
  state.cards = [card]
  Object.assign(values, request.values)
  state.run = request
  choose(request.task)
  showCards()
  void card.ready.then(() => {
    card.end(result)
    setThreshold(threshold)
    showThreshold()
  })
}

// ---- copying

$('copy').onclick = async () => {
  const request = state.run ?? { task: state.task, values: { ...values }, options: options() }
  const pictures = state.cards.map(({ name, width, height, shown, result, error }) => {
    const { tokens: _, ...rest } = result ?? {}
    return { name, width, height, shown, error, result: rest }
  })
  try {
    await navigator.clipboard.writeText(textOf($('copy-kind').value, { ...request, pictures }))
    say('Copied')
  } catch {
    say('The browser did not let this page copy')
  }
}

// ---- camera

$('photo').onclick = async () => {
  // phones have a better camera than any page; elsewhere the page takes the photo
  if (matchMedia('(pointer: coarse)').matches) return $('capture').click()
  await useCamera(async () => {
    addFiles([await camera.frame()])
    closeCamera()
  })
}
$('live').onclick = async () => await useCamera(live)
$('camera-stop').onclick = closeCamera
$('camera-keep').onclick = async () => addFiles([await camera.frame()])

async function useCamera(then) {
  try {
    if (!camera.on) await camera.start()
    $('camera').hidden = false
    await then()
  } catch (error) {
    closeCamera()
    say(`No camera: ${error.message}`)
  }
}

function closeCamera() {
  camera.stop()
  $('camera').hidden = true
  $('camera-text').replaceChildren()
  changes.forget()
}

/** Of a frame several tasks, which share what the model sees of it. */
const liveTasks = () => [state.task, ...tasks.filter((task) => task !== state.task && $(`also-${task.id}`).checked)]

function showAlso() {
  $('live-also').replaceChildren(
    element('legend', { textContent: 'Of each picture also' }),
    ...tasks.map(({ id, name }) =>
      element('label', {}, element('input', { type: 'checkbox', id: `also-${id}`, onchange: looksAnew }), name)
    )
  )
}

const changes = new Changes()
const looksAnew = () => changes.forget()
$('form').addEventListener('input', looksAnew)
$('tabs').addEventListener('click', looksAnew)
$('live-changed').onchange = looksAnew

async function live() {
  let last = performance.now()
  await camera.watch(async (frame) => {
    if ($('live-changed').checked && !changes.isNew($('video'))) return
    await lookAt(await frame(), liveTasks())
    changes.lookedAt()
    const now = performance.now()
    $('camera-rate').textContent = `${(1000 / (now - last)).toFixed(1)} pictures/s`
    last = now
  })
}

const lacks = ({ fields }) => fields.find(({ name, required }) => required && !values[name])

async function lookAt(frame, asked) {
  const { videoWidth: width, videoHeight: height } = $('video')
  const answers = await Promise.all(asked.map(async (task) => await answerOf(task, frame)))
  const objects = answers.flatMap(({ objects }) => objects)
  draw($('video-overlay'), objects, { width, height })
  $('camera-text').replaceChildren(
    ...answers
      .filter(({ text }) => text)
      .map(({ task, text }) =>
        element('p', {}, asked.length > 1 ? element('span', { className: 'hint', textContent: task.name }) : '', text)
      )
  )
  if (answers.some(({ failed }) => failed)) await new Promise((resolve) => setTimeout(resolve, 1000))
}

async function answerOf(task, frame) {
  const missing = lacks(task)
  if (missing) return { task, objects: [], text: `Fill in: ${missing.label}` }
  try {
    const result = await ask(frame, { task, values: { ...values }, options: options() })
    const least = defaultThreshold(task, values)
    const objects = result.objects.filter(({ score }) => score >= least)
    return { task, objects, text: objects.length > 0 ? '' : result.text || 'nothing' }
  } catch (error) {
    return { task, objects: [], text: error.message, failed: true }
  }
}

// ---- the rest

let silence
/** `seen` false: for those who hear the page; the others see it already. */
function say(text, seen = true) {
  $('status').textContent = text
  $('status').classList.toggle('unseen', !seen)
  clearTimeout(silence)
  silence = setTimeout(() => {
    $('status').textContent = ''
  }, 6000)
}

document.addEventListener('pointerover', ({ target, clientX, clientY }) => {
  const tip = $('tip')
  tip.hidden = !target.tip
  if (tip.hidden) return
  tip.textContent = target.tip()
  const { width, height } = tip.getBoundingClientRect()
  tip.style.left = `${Math.max(4, Math.min(clientX + 12, innerWidth - width - 8))}px`
  tip.style.top = `${clientY + 20 + height > innerHeight ? clientY - height - 12 : clientY + 20}px`
})

followTheme($('theme'))

$('key-dialog').addEventListener('close', () => {
  if ($('key').value === '') return
  useKey($('key').value)
  void showModels()
})

async function showModels() {
  try {
    const models = await listModels()
    $('model').replaceChildren(...models.map((id) => element('option', { value: id, textContent: id })))
  } catch (error) {
    if (error.status === 401) $('key-dialog').showModal()
    else say(error.message)
  }
}

showTabs()
showFields()
showAlso()
void showModels()
