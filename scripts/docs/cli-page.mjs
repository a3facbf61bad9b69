// docs/cli.md: the command's own help pages, one after another. Test: test/docs/generated.test.ts.

/** `helpOf(...words)`: what `paligemma ...words --help` prints. */
export async function cliPage(helpOf) {
  const overview = await helpOf()
  const verbs = [...overview.matchAll(/^ {2}([a-z]+)(?: \[| <| {2,})/gm)].map(([, verb]) => verb)
  const sections = []
  for (const verb of verbs.filter((name) => name !== 'help')) {
    sections.push(`## paligemma ${verb}\n\n\`\`\`text\n${(await helpOf(verb)).trim()}\n\`\`\`\n`)
  }
  return `# Command reference

Made of the program's own help by \`npm run docs\`; \`npx paligemma VERB --help\` prints the same.

\`\`\`text
${overview.trim()}
\`\`\`

${sections.join('\n')}`
}
