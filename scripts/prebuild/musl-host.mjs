// npm and Debian have no Node for musl. What can be seen without one: that Debian's musl loads the engine and finds
// all that it asks for in itself, in musl and in Node. The host is a program with functions of Node's names that do
// nothing. And npm has Bun for musl, which runs the package under Debian's musl with a C++ library made here.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { root } from './record.mjs'
import { runZig } from './zig.mjs'

const loader = '/lib/ld-musl-x86_64.so.1'

export const whyNoMusl = () => (existsSync(loader) ? '' : `has no ${loader} (Debian: apt-get install musl)`)

function source() {
  const { symbols } = createRequire(import.meta.url)('node-api-headers')
  const names = [...symbols.v8.js_native_api_symbols, ...symbols.v8.node_api_symbols]
  return `#include <dlfcn.h>
#include <stdio.h>
${names.map((name) => `int ${name}(void) { return 9; }`).join('\n')}
int main(int argc, char** argv) {
  void* engine = dlopen(argv[1], RTLD_NOW);
  if (!engine) return puts(dlerror()), 1;
  int (*version)(void) = dlsym(engine, "node_api_module_get_api_version_v1");
  if (!version || !dlsym(engine, "napi_register_module_v1")) return puts("no entrance"), 1;
  return printf("Node-API %d\\n", version()), 0;
}
`
}

/** What the host prints of an engine: "Node-API 8" where it was loaded. */
export async function loadWithMusl(engine) {
  const folder = join(root, 'build', 'prebuild-test', 'musl')
  mkdirSync(folder, { recursive: true })
  const [code, host] = [join(folder, 'host.c'), join(folder, 'host')]
  writeFileSync(code, source())
  // Not "zig cc", which links statically for musl: such a program cannot load anything.
  const how = ['-target', 'x86_64-linux-musl', '-dynamic', '-rdynamic', '-lc', '-cflags', '-w', '--']
  await runZig(['build-exe', ...how, code, `-femit-bin=${host}`])
  const { status, stdout, stderr } = spawnSync(loader, [host, engine], { encoding: 'utf8' })
  return { status, output: `${stdout}${stderr}` }
}

const debian = (library, compiler) =>
  spawnSync(compiler, [`-print-file-name=${library}`], { encoding: 'utf8' }).stdout.trim()

/** Names that a program wants of its C++ library, those that it holds copies of included. */
function wantedOf(program) {
  const { stdout } = spawnSync('readelf', ['-rW', program], { encoding: 'utf8', maxBuffer: 2 ** 28 })
  return [
    ...new Set([...stdout.matchAll(/R_X86_64_(?:COPY|GLOB_DAT|JUMP_SLO\w*|64) +\S+ +(\w+)/g)].map(([, name]) => name))
  ]
}

/** A folder with a libstdc++.so.6 for musl: what `program` wants of it, from Debian's static libraries. */
export function cppRuntime(program) {
  const folder = join(root, 'build', 'prebuild-test', 'musl')
  mkdirSync(folder, { recursive: true })
  const library = join(folder, 'libstdc++.so.6')
  const archives = [debian('libstdc++.a', 'g++'), debian('libgcc_eh.a', 'gcc'), debian('libgcc.a', 'gcc')]
  const args = [
    ...['-shared', '-nostdlib', '-fPIC', '-o', library, '-Wl,-soname,libstdc++.so.6'],
    ...wantedOf(program).map((name) => `-Wl,-u,${name}`),
    ...[join(root, 'scripts', 'prebuild', 'musl-runtime.c'), ...archives]
  ]
  const { status, stderr } = spawnSync('gcc', args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`no C++ library for musl could be linked: ${stderr.slice(-500)}`)
  return folder
}
