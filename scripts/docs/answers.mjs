// Answers in the documents: what a snippet logs stands behind "// → " in it, on the line of the call or on lines below
// it, one for each line of output. `npm run docs -- --pictures` writes them anew, tests hold the pages to them.
import { execFileSync } from 'node:child_process'

const mark = '// → '

/** What readers of a page have by its first snippet: the names of the package, the demo model and its picture. */
const prelude = `import * as everything from 'node-paligemma'
const { demoImage: image, loadModel } = everything
Object.assign(globalThis, everything, { image, model: await loadModel('demo') })
`

/** The page with what its snippets log now; they run in `folder`, whose files they name. */
export function answered(page, folder) {
  return page.replace(/(?<=^```js\n)[\s\S]*?(?=^```$)/gm, (code) =>
    code.includes(mark) ? refilled(code, logOf(code, folder)) : code
  )
}

/** What a snippet says that it logs. */
export function answersIn(code) {
  return [...code.matchAll(/\/\/ → (.*)$/gm)].map(([, words]) => words)
}

/** The lines that it logs: by the kernels that every machine has, since a word may hang on a last digit. */
export function logOf(code, folder) {
  const input = code.includes('loadModel(') ? code : prelude + code
  const options = { cwd: folder, input, encoding: 'utf8', env: { ...process.env, PALIGEMMA_ISA: 'scalar' } }
  return execFileSync(process.execPath, ['--input-type=module', '-'], options).trimEnd().split('\n')
}

function refilled(code, lines) {
  const places = answersIn(code).length
  if (places !== lines.length) throw new Error(`${places} answers are written, ${lines.length} came:\n${code}`)
  let next = 0
  return code.replace(/\/\/ → .*$/gm, () => mark + lines[next++])
}
