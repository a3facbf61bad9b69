/** Code in the documentation, as readers copy it. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'

const root = join(__dirname, '..', '..')

/** Every page that ships with the package, and those of the examples. */
export const pages = [
  'README.md',
  join('demo', 'README.md'),
  ...readdirSync(join(root, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
  ...readdirSync(join(root, 'examples'))
    .map((name) => join('examples', name, 'README.md'))
    .filter((path) => readdirSync(join(root, path, '..')).includes('README.md'))
]

export interface Snippet {
  /** "README.md:12" */
  where: string
  language: string
  text: string
  /** The paragraphs beside it. */
  around: string
}

/** Fenced blocks of these languages. */
export function snippets(languages: readonly string[], files: readonly string[] = pages): Snippet[] {
  return files.flatMap((page) => {
    const lines = readFileSync(join(root, page), 'utf8').split('\n')
    const found: Snippet[] = []
    for (let i = 0; i < lines.length; i++) {
      const language = /^ *```(\w+)/.exec(lines[i]!)?.[1]
      if (language === undefined) {
        if (/^ *```/.test(lines[i]!)) i = closing(lines, i)
        continue
      }
      const end = closing(lines, i)
      if (languages.includes(language)) {
        const text = `${lines.slice(i + 1, end).join('\n')}\n`
        found.push({
          where: `${page}:${i + 1}`,
          language,
          text,
          around: lines.slice(Math.max(0, i - 3), end + 4).join('\n')
        })
      }
      i = end
    }
    return found
  })
}

function closing(lines: readonly string[], start: number): number {
  const end = lines.findIndex((line, i) => i > start && /^ *```\s*$/.test(line))
  return end < 0 ? lines.length : end
}

/** As JavaScript: types taken out, nothing else changed. */
export function toJavaScript({ text }: Snippet): { code: string; problems: string[] } {
  const { outputText, diagnostics = [] } = ts.transpileModule(text, {
    reportDiagnostics: true,
    compilerOptions: { target: ts.ScriptTarget.ESNext, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true }
  })
  return {
    code: outputText,
    problems: diagnostics.map(({ messageText }) => ts.flattenDiagnosticMessageText(messageText, '\n'))
  }
}

/** Those that run as they stand: they use the demo model alone. */
export function runnable(): Snippet[] {
  return snippets(['js', 'ts']).filter(
    ({ text }) => /from 'node-paligemma'/.test(text) && /loadModel\('demo'\)/.test(text)
  )
}
