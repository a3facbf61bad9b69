/** `paligemma build`: compiles the addon where no prebuilt one fits. */
import { spawn } from 'node:child_process'
import { createReadStream, createWriteStream, existsSync } from 'node:fs'
import { mkdir, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { pipeline } from 'node:stream'
import { pipeline as piped } from 'node:stream/promises'
import { createGunzip } from 'node:zlib'
import type { Command } from '../vendored'
import { PaliGemmaError } from '../../base/errors'
import { integer } from '../args'
import { type Context, printLine, usageError } from '../context'
import { addExamples, group } from '../help'
import { packageRoot } from '../../base/package-files'

const mostJobs = 1024

export function addBuild(program: Command, context: Context): void {
  const command = program
    .command('build')
    .summary('compile the native engine for this machine')
    .description(
      'Compiles the native engine with node-gyp, from the sources in the package. Needs python3, make and a C++20 ' +
        'compiler ' +
        "(Windows: Visual Studio 2022 with C++), and Node's headers, which node-gyp downloads unless --nodedir names " +
        'them.'
    )
  addExamples(command, 'build', 'build --jobs 2 --nodedir /usr/local')
  command
    .optionsGroup(group.task)
    .option('-j, --jobs <n>', 'parallel compiler processes (default: all cores)', integer)
    .option('--nodedir <folder>', 'a Node installation or source tree, for its headers')
    .action(async (options: { jobs?: number; nodedir?: string }) => {
      const { jobs } = options
      if (jobs !== undefined && (jobs < 1 || jobs > mostJobs))
        throw usageError(`Expected integer from 1 to ${mostJobs} for --jobs but received ${jobs}`)
      const gyp = findNodeGyp()
      if (!gyp) {
        throw new PaliGemmaError(
          'ERR_NATIVE_MISSING',
          'node-gyp was not found, neither beside this package nor in npm; install it with "npm install node-gyp" ' +
            'and try again'
        )
      }
      if (!existsSync(join(packageRoot, 'native'))) await unpackSources(join(packageRoot, 'dist', 'sources.tgz'))
      // Not "rebuild": that would remove everything under build/, other builds included.
      const args = [gyp, 'configure', 'build', '--release', `--jobs=${options.jobs ?? 'max'}`]
      if (options.nodedir) args.push(`--nodedir=${options.nodedir}`)
      const code = await withBindingGyp(() => run(process.execPath, args, context.signal))
      const output = join(packageRoot, 'build', 'Release', 'paligemma.node')
      if (code !== 0 || !existsSync(output)) {
        throw new PaliGemmaError(
          'ERR_NATIVE_MISSING',
          'The native engine could not be compiled; the lines above say why. It needs python3, make and a C++20 ' +
            'compiler (g++ >= 10, clang >= 14, Visual Studio 2022); on Debian: apt-get install python3 make g++'
        )
      }
      const { native } = await import('../../engine/native.js')
      printLine(context, `${output} works on this machine (${native().cpuInfo().isa})`)
    })
}

/** What scripts/pack-sources.mjs packed; a clone has them unpacked. */
async function unpackSources(archive: string): Promise<void> {
  const { extract } = await import('../batch/vendored.js')
  const files = pipeline(createReadStream(archive), createGunzip(), extract(), () => {}) // errors come out of the loop
  for await (const file of files) {
    const path = join(packageRoot, file.header.name)
    await mkdir(dirname(path), { recursive: true })
    await piped(file, createWriteStream(path))
  }
}

/**
 * node-gyp wants a binding.gyp at the root. A clone has one; the npm package must not, as pnpm and Yarn would compile
 * it at installation: there it is lent for the time of the build.
 */
async function withBindingGyp<T>(work: () => Promise<T>): Promise<T> {
  const root = join(packageRoot, 'binding.gyp')
  if (existsSync(root)) return await work()
  await writeFile(root, '{ "includes": ["native/addon.gypi"] }\n')
  try {
    return await work()
  } finally {
    await rm(root, { force: true })
  }
}

/** node-gyp beside the package, or the one that npm brings. */
function findNodeGyp(): string | undefined {
  const script = join('node-gyp', 'bin', 'node-gyp.js')
  const bin = dirname(process.execPath)
  const npm = process.env['npm_execpath']
  const candidates = [
    ...(npm ? [join(dirname(npm), '..', 'node_modules', script)] : []),
    join(bin, '..', 'lib', 'node_modules', 'npm', 'node_modules', script),
    join(bin, '..', 'share', 'nodejs', 'npm', 'node_modules', script),
    join(bin, '..', 'share', 'nodejs', script),
    join(bin, 'node_modules', 'npm', 'node_modules', script)
  ]
  try {
    candidates.unshift(createRequire(join(packageRoot, 'package.json')).resolve('node-gyp/bin/node-gyp.js'))
  } catch {
    // Not installed beside the package; npm has its own.
  }
  return candidates.find((path) => existsSync(path))
}

async function run(command: string, args: string[], signal: AbortSignal): Promise<number | null> {
  return await new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: packageRoot, stdio: 'inherit', signal })
    child.on('error', (error) => {
      reject(signal.aborted ? signal.reason : error)
    })
    child.on('exit', resolve)
  })
}
