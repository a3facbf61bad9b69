// npm run release:check: may this commit be published? Every question is asked, all that is wrong is named; the exit
// code is 1 then. It changes nothing but build/release, where it leaves the tarball, its checksum and the bill of
// materials.
//   node scripts/release-check.mjs [--claims | --tests]
//     --claims: only what needs no build: what the publisher states of version, day and repository
//     --tests: `npm test` too
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { complaints, describe, sizesOf } from './package-size.mjs'
import { kernelIngredients, mismatch, root, sha256, sourceCommit } from './prebuild/record.mjs'
import { targets } from './prebuild/targets.mjs'

const output = join(root, 'build', 'release')
const json = (file) => JSON.parse(readFileSync(join(root, file), 'utf8'))
const { name, version } = json('package.json')

function run(command, args) {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 2 ** 28
  })
  return { status, stdout: stdout ?? '', all: `${stdout ?? ''}${stderr ?? ''}${error?.message ?? ''}` }
}

/** What a command complains of; '' where it does not. */
function complaint(command, ...args) {
  const { status, all } = run(command, args)
  return status === 0 ? '' : all.trim().split('\n').slice(-25).join('\n')
}

const script = (file, ...args) => complaint(process.execPath, join(root, 'scripts', file), ...args)

function cleanTree() {
  const { stdout } = run('git', ['status', '--porcelain'])
  return stdout && `there are changes that no commit has:\n${stdout}`
}

function versionsAgree() {
  const lock = json('package-lock.json')
  const found = { 'package-lock.json': lock.version, "package-lock.json's own package": lock.packages[''].version }
  const tag = run('git', ['describe', '--tags', '--exact-match', '--match', 'v*']).stdout.trim()
  if (tag) found['the tag'] = tag.slice(1)
  const wrong = Object.entries(found).filter(([, value]) => value !== version)
  return wrong.map(([where, value]) => `package.json says ${version}, ${where} ${value}`).join('\n')
}

/** The version has its section with a day, above all others, and nothing waits for a later one. Leaves it as notes. */
function changelog() {
  const nothing = /^## Unreleased\n+Nothing so far\.\n/m
  const text = readFileSync(join(root, 'CHANGELOG.md'), 'utf8').replace(nothing, '')
  const [, section = ''] = text.split(/^## /m)
  const first = section.split('\n', 1)[0]
  writeFileSync(join(output, 'notes.md'), section.slice(first.length).trim())
  if (/^unreleased/i.test(first))
    return `begins with "## ${first}": name it "## ${version} (YYYY-MM-DD)", or say "Nothing so far."`
  if (!first.startsWith(version)) return `begins with "## ${first}", not with version ${version}`
  return /\d{4}-\d\d-\d\d/.test(first) ? '' : `"## ${first}" has no date`
}

/** npm publishes with provenance only from the repository that package.json names, which is the publisher's to say. */
function repository() {
  const { repository } = json('package.json')
  const url = repository?.url ?? repository
  const here = process.env.GITHUB_REPOSITORY
  if (!url)
    return `package.json names none, and npm gives no provenance then. The publisher adds
"repository": { "type": "git", "url": "git+https://github.com/${here ?? 'OWNER/NAME'}.git" }, "homepage" and "bugs"`
  const named = /^(?:git\+)?https:\/\/github\.com\/([\w.-]+\/[\w.-]+?)(?:\.git)?$/.exec(url)?.[1]
  if (!named) return `package.json names ${url}; provenance needs git+https://github.com/OWNER/NAME.git`
  return here && here !== named ? `package.json names ${named}, but this is ${here}: npm refuses such a provenance` : ''
}

function prebuilds() {
  const wrong = []
  for (const target of targets) {
    const file = join(root, 'prebuilds', target.folder, target.file)
    const why = existsSync(file) ? mismatch(file) : 'is missing; "npm run prebuild:all" makes it'
    if (why) wrong.push(`${target.name}: ${why}`)
  }
  const kernels = join(root, 'prebuilds', 'cuda', 'kernels.br')
  const why = existsSync(kernels)
    ? mismatch(kernels, sourceCommit(kernelIngredients))
    : 'is missing; "npm run build:ptx" makes it, where nvcc is'
  if (why) wrong.push(`prebuilds/cuda/kernels.br: ${why}`)
  return wrong.join('\n')
}

/** Permissive licences, and those of sharp's libraries, which are linked at run time and can be replaced. */
const allowed = /^(MIT|ISC|0BSD|BSD-[23]-Clause|Apache-2\.0|BlueOak-1\.0\.0)$/
const linked = /^@img\/sharp-/

function licences() {
  const { packages } = json('package-lock.json')
  const wrong = Object.entries(packages).filter(([path, { dev, peer, license }]) => {
    const of = path.replace(/^.*node_modules\//, '')
    return path && !dev && !peer && !linked.test(of) && !allowed.test(license ?? '')
  })
  const inside = vendored().filter(({ license }) => !allowed.test(license))
  return [...wrong.map(([path, { license }]) => [path, license]), ...inside.map(({ name, license }) => [name, license])]
    .map(([of, license]) => `${of} is under ${license ?? 'no licence'}`)
    .join('\n')
}

/** The packages that lie in the files vendored.js. */
function vendored() {
  const licences = readFileSync(join(root, 'dist', 'vendored.licences.txt'), 'utf8')
  const heads = licences.matchAll(/^={80}\n(\S+) (\S+) \((\S+)\)/gm)
  return [...heads].map(([, name, version, license]) => ({ name, version, license }))
}

/** What is installed with the package, and what lies in it. */
function billOfMaterials() {
  const bill = (...args) => run('npm', ['sbom', '--sbom-format=cyclonedx', '--sbom-type=library', ...args])
  const installed = bill('--omit=dev')
  const all = bill()
  if (installed.status !== 0 || all.status !== 0) return installed.all + all.all
  const result = JSON.parse(installed.stdout)
  const inside = vendored().map(({ name, version }) => `${name}@${version}`)
  const found = JSON.parse(all.stdout).components.filter((one) => inside.includes(one['bom-ref']))
  result.components.push(...found)
  writeFileSync(join(output, `${name}-${version}.cdx.json`), JSON.stringify(result, null, 2))
  return found.length === inside.length ? '' : `the bill names ${found.length} of ${inside.length} packages inside`
}

/** The tarball as `npm publish` would send it. */
function size() {
  const packed = run('npm', ['pack', '--ignore-scripts', '--silent', '--json', '--pack-destination', output])
  if (packed.status !== 0) return packed.all
  const [tarball] = tarballs()
  writeFileSync(`${tarball}.sha256`, `${sha256(tarball)}  ${tarball.slice(output.length + 1)}\n`)
  const sizes = sizesOf(JSON.parse(packed.stdout)[0])
  console.log(`  ${describe(sizes)}`)
  return complaints(sizes).join('\n')
}

/** Types as every module resolution of TypeScript sees them; `node10` knows no subpaths, which is its nature. */
const types = () =>
  complaint('npx', '--yes', '@arethetypeswrong/cli@0.18.5', ...tarballs(), '--ignore-rules', 'no-resolution')
const tarballs = () =>
  readdirSync(output)
    .filter((file) => file.endsWith('.tgz'))
    .map((file) => join(output, file))

const vitest = (...files) => complaint('npx', 'vitest', 'run', ...files)

const claims = {
  'the tree is clean': cleanTree,
  'versions agree': versionsAgree,
  'CHANGELOG.md has this version': changelog,
  'package.json names its repository': repository
}
const made = {
  'engines of all platforms are of these sources': prebuilds,
  'engines load on the oldest systems': () => script('check-prebuilds.mjs'),
  'TypeScript is built': () => script('build.mjs', '--ts'),
  'nothing is missing from the package': () => script('check-package.mjs'),
  'lint finds nothing': () => script('lint.mjs'),
  'documents: links, snippets, exports': () => vitest('test/docs', 'test/architecture.test.ts'),
  'licences of what is installed': licences,
  'bill of materials': billOfMaterials,
  size,
  'types under every resolution': types,
  ...(process.argv.includes('--tests') && { tests: () => script('test.mjs') })
}
const questions = process.argv.includes('--claims') ? claims : { ...claims, ...made }

rmSync(output, { recursive: true, force: true })
mkdirSync(output, { recursive: true })
let failed = 0
for (const [question, ask] of Object.entries(questions)) {
  const why = ask()
  if (why) failed++
  console.log(why ? `NO  ${question}\n    ${why.replaceAll('\n', '\n    ')}` : `yes ${question}`)
}
console.log(
  failed
    ? `${failed} of ${Object.keys(questions).length} answers are no: not to be published`
    : process.argv.includes('--claims')
      ? 'All claims hold'
      : 'May be published'
)
process.exitCode = failed ? 1 : 0
