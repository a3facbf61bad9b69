/** The tabs: what each asks for, and what it asks the server. */

const languages =
  'en ar bn cs da de el es fa fi fil fr hi hr hu id it iw ja ko mi nl no pl pt ro ru sv sw te th tr uk vi zh'
const lang = {
  name: 'lang',
  label: 'Language',
  choices: languages.split(' ').map((code) => [code, nameOf(code)])
}
const labels = {
  name: 'labels',
  label: 'What to look for, several with ";" between them',
  placeholder: 'cow; boat',
  required: true
}

function nameOf(code) {
  try {
    return new Intl.DisplayNames(['en'], { type: 'language' }).of(code === 'iw' ? 'he' : code) ?? code
  } catch {
    return code
  }
}

export const tasks = [
  {
    id: 'caption',
    name: 'Caption',
    fields: [
      {
        name: 'style',
        label: 'Style',
        choices: [
          ['caption', 'One sentence'],
          ['describe', 'Several sentences'],
          ['cap', 'Like an alt text']
        ]
      },
      lang
    ],
    prompt: ({ style, lang }) => `${style} ${lang}`
  },
  {
    id: 'ask',
    name: 'Ask',
    fields: [
      { name: 'question', label: 'Question', placeholder: 'where is the cow?', required: true, long: true },
      lang
    ],
    prompt: ({ question, lang }) => `answer ${lang} ${question}`
  },
  { id: 'read', name: 'Read', fields: [], prompt: () => 'ocr' },
  { id: 'find', name: 'Find', fields: [labels], kind: 'detect' },
  { id: 'cut', name: 'Cut out', fields: [labels], kind: 'segment' },
  {
    id: 'free',
    name: 'Prompt',
    fields: [{ name: 'prompt', label: 'Prompt', placeholder: 'detect cow ; boat', required: true, long: true }],
    prompt: ({ prompt }) => prompt
  }
]

export const labelsOf = (text) =>
  text
    .split(';')
    .map((label) => label.trim())
    .filter(Boolean)

/** What the task's request says, for people. */
export const titleOf = (task, values) =>
  task.kind ? `${task.kind} ${labelsOf(values.labels).join(' ; ')}` : task.prompt(values)

/** What tells best what is there from what is not, as the library's `recommendedMinScore`. */
export const defaultThreshold = (task, values) => (task.kind ? 0.5 / Math.max(labelsOf(values.labels).length, 1) : 0)
