// The systems that the package brings an engine for, and what each engine may ask of its system.
//   zig     the target as Zig names it, with the oldest C library or system that must do
//   folder  and file: where lib/engine/locate.ts looks
//   allows  the libraries that an engine may link against; what else it needs must be inside
const glibc = [/^ld-linux-.*\.so\.\d$/, /^lib(c|m|pthread|dl|rt)\.so\.\d$/]
const musl = [/^libc\.musl-.*\.so\.1$/, /^libc\.so$/]
const apple = [/^\/usr\/lib\/lib(System\.B|c\+\+\.1|objc\.A)\.dylib$/, /^\/System\/Library\/Frameworks\//]
const windows = [/^(kernel32|ntdll|advapi32|ucrtbase|msvcrt)\.dll$/i, /^api-ms-win-crt-.*\.dll$/i]

const target = (zig, folder, kind, allows) => ({
  name: kind ? `${folder}-${kind}` : folder,
  zig,
  folder,
  file: kind ? `node-paligemma.${kind}.node` : 'node-paligemma.node',
  allows
})

/** Node 20's own binaries need glibc 2.28. */
export const glibcFloor = '2.28'
/** The deployment target of native/addon.gypi. */
export const macosFloor = '12.0'

export const targets = [
  target(`x86_64-linux-gnu.${glibcFloor}`, 'linux-x64', 'glibc', glibc),
  target(`aarch64-linux-gnu.${glibcFloor}`, 'linux-arm64', 'glibc', glibc),
  target('x86_64-linux-musl', 'linux-x64', 'musl', musl),
  target('aarch64-linux-musl', 'linux-arm64', 'musl', musl),
  target('x86_64-windows-gnu', 'win32-x64', '', windows),
  target('aarch64-windows-gnu', 'win32-arm64', '', windows),
  target(`aarch64-macos.${macosFloor}`, 'darwin-arm64', '', apple),
  target(`x86_64-macos.${macosFloor}`, 'darwin-x64', '', apple)
]
