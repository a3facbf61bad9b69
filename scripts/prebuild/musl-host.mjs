// npm and Debian have no Node for musl. What can be seen without one: that Debian's musl loads the engine and finds
// all that it asks for in itself, in musl and in Node. The host is a program with functions of Node's names that do
// nothing.
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
