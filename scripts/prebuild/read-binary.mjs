// What a shared library asks of its system, read from the file itself: packing may happen on any system. ELF, Mach-O
// and PE, 64 bits, little endian: all that the package has engines for.
//   { format, machine, libraries, versions: [library, version][], minimum, exports, imports }
import { createHash } from 'node:crypto'

/** Windows of a file with names for what is read. */
class Bytes {
  constructor(buffer) {
    this.buffer = buffer
  }
  u16 = (at) => this.buffer.readUInt16LE(at)
  u32 = (at) => this.buffer.readUInt32LE(at)
  u64 = (at) => Number(this.buffer.readBigUInt64LE(at))
  text(at) {
    const end = this.buffer.indexOf(0, at)
    return this.buffer.toString('latin1', at, end < 0 ? this.buffer.length : end)
  }
}

/** Entries of a table, by their numbers. */
const each = (count, read) => Array.from({ length: count }, (_, i) => read(i))

// ---- ELF: /usr/include/elf.h

const elfMachines = { 62: 'x64', 183: 'arm64', 40: 'arm', 3: 'ia32' }

function readElf(bytes) {
  const table = bytes.u64(40)
  const [size, count] = [bytes.u16(58), bytes.u16(60)]
  const sections = each(count, (i) => {
    const at = table + i * size
    return { type: bytes.u32(at + 4), offset: bytes.u64(at + 24), bytes: bytes.u64(at + 32), link: bytes.u32(at + 40) }
  })
  const namesOf = (section) => sections[section.link]?.offset ?? 0
  return {
    format: 'elf',
    machine: elfMachines[bytes.u16(18)] ?? `machine ${bytes.u16(18)}`,
    libraries: elfLibraries(bytes, sections, namesOf),
    versions: elfVersions(bytes, sections, namesOf),
    ...elfSymbols(bytes, sections, namesOf)
  }
}

function elfLibraries(bytes, sections, namesOf) {
  const dynamic = sections.find(({ type }) => type === 6)
  if (!dynamic) return []
  const entries = each(dynamic.bytes / 16, (i) => [
    bytes.u64(dynamic.offset + i * 16),
    bytes.u64(dynamic.offset + i * 16 + 8)
  ])
  return entries.filter(([tag]) => tag === 1).map(([, name]) => bytes.text(namesOf(dynamic) + name))
}

function elfVersions(bytes, sections, namesOf) {
  const needs = sections.find(({ type }) => type === 0x6ffffffe)
  if (!needs) return []
  const found = []
  for (let file = needs.offset; ; ) {
    const library = bytes.text(namesOf(needs) + bytes.u32(file + 4))
    let version = file + bytes.u32(file + 8)
    for (let i = bytes.u16(file + 2); i > 0; i--) {
      found.push([library, bytes.text(namesOf(needs) + bytes.u32(version + 8))])
      version += bytes.u32(version + 12)
    }
    const next = bytes.u32(file + 12)
    if (next === 0) return found
    file += next
  }
}

/** What others see of it, and what it wants from others. */
function elfSymbols(bytes, sections, namesOf) {
  const symbols = sections.find(({ type }) => type === 11)
  if (!symbols) return { exports: [], imports: [] }
  const all = each(symbols.bytes / 24, (i) => {
    const at = symbols.offset + i * 24
    return { name: bytes.text(namesOf(symbols) + bytes.u32(at)), section: bytes.u16(at + 6) }
  }).filter(({ name }) => name)
  const names = (inside) => all.filter(({ section }) => (section !== 0) === inside).map(({ name }) => name)
  return { exports: names(true), imports: names(false) }
}

// ---- Mach-O: <mach-o/loader.h>, <mach-o/nlist.h>

const [machArm64, machX64] = [0x0100000c, 0x01000007]
const machMachines = { [machArm64]: 'arm64', [machX64]: 'x64' }
const machData = [0x1d, 0x26, 0x29] // signature, function starts, data in code
const [dyldInfo, exportsTrie] = [0x80000022, 0x80000033]
const loadDylibs = [0xc, 0x80000018, 0x8000001f, 0x80000023]

function readMachO(bytes) {
  const result = {
    format: 'mach-o',
    machine: machMachines[bytes.u32(4)] ?? `processor ${bytes.u32(4)}`,
    libraries: [],
    versions: [],
    exports: [],
    imports: [],
    signed: false
  }
  const version = (word) => `${word >>> 16}.${(word >>> 8) & 255}`
  for (let i = bytes.u32(16), at = 32; i > 0; i--, at += bytes.u32(at + 4)) {
    const command = bytes.u32(at)
    if (machData.includes(command) && bytes.u32(at + 8) + bytes.u32(at + 12) > bytes.buffer.length)
      throw new RangeError(`command ${command} leads outside`)
    if (loadDylibs.includes(command)) result.libraries.push(bytes.text(at + bytes.u32(at + 8)))
    else if (command === 0x32) result.minimum = version(bytes.u32(at + 12))
    else if (command === 0x24) result.minimum = version(bytes.u32(at + 8))
    else if (command === 0x1d) result.signed = machSigned(bytes, bytes.u32(at + 8))
    else if (command === 2) result.imports = machImports(bytes, at)
    else if (command === dyldInfo) result.exports = machExports(bytes, bytes.u32(at + 40), bytes.u32(at + 44))
    else if (command === exportsTrie) result.exports = machExports(bytes, bytes.u32(at + 8), bytes.u32(at + 12))
  }
  return result
}

/** Whether the signature at this place is one of these bytes: Apple's <kern/cs_blobs.h>, big endian. */
function machSigned({ buffer }, at) {
  const word = (place) => buffer.readUInt32BE(place)
  const directory = at + word(at + 16)
  if (word(at) !== 0xfade0cc0 || word(directory) !== 0xfade0c02) return false
  const [sums, pages, end] = [16, 28, 32].map((field) => word(directory + field))
  const size = 2 ** buffer[directory + 39]
  if (end !== at || pages !== Math.ceil(end / size)) return false
  return each(pages, (i) => {
    const sum = createHash('sha256')
      .update(buffer.subarray(i * size, Math.min(end, (i + 1) * size)))
      .digest()
    return sum.equals(buffer.subarray(directory + sums + i * 32, directory + sums + (i + 1) * 32))
  }).every(Boolean)
}

function machImports(bytes, command) {
  const [symbols, count, names] = [bytes.u32(command + 8), bytes.u32(command + 12), bytes.u32(command + 16)]
  const all = each(count, (i) => {
    const at = symbols + i * 16
    return { name: bytes.text(names + bytes.u32(at)), type: bytes.buffer[at + 4] }
  })
  // external, neither private nor for debuggers; defined nowhere
  return all.filter(({ type }) => (type & 0xff) === 1).map(({ name }) => name.slice(1))
}

/** The names that a trie at `start` leads to: where dlsym looks, whatever symbols were taken out. */
function machExports({ buffer }, start, size) {
  const trie = buffer.subarray(start, start + size)
  const number = (at) => {
    let [value, shift] = [0, 0]
    for (; trie[at] > 127; at++, shift += 7) value += (trie[at] & 127) * 2 ** shift
    return [value + trie[at] * 2 ** shift, at + 1]
  }
  const names = []
  const waiting = size > 0 ? [[0, '']] : []
  const seen = new Set([0])
  while (waiting.length > 0) {
    const [node, name] = waiting.pop()
    const [bytes, inside] = number(node)
    if (bytes > 0) names.push(name.slice(1))
    let at = inside + bytes + 1
    for (let children = trie[at - 1]; children > 0; children--) {
      const end = trie.indexOf(0, at)
      const [child, after] = number(end + 1)
      if (!(end >= at && child < size) || seen.has(child)) throw new RangeError('the exports lead nowhere')
      seen.add(child)
      waiting.push([child, name + trie.toString('latin1', at, end)])
      at = after
    }
  }
  return names
}

// ---- PE: "PE Format" of Microsoft's documentation

const [peX64, peArm64] = [0x8664, 0xaa64]
const peMachines = { [peX64]: 'x64', [peArm64]: 'arm64' }

function readPe(bytes) {
  const header = bytes.u32(0x3c)
  if (bytes.u32(header) !== 0x4550) throw new Error('is no program of Windows')
  const optional = header + 24
  const sections = each(bytes.u16(header + 6), (i) => {
    const at = optional + bytes.u16(header + 20) + i * 40
    return { address: bytes.u32(at + 12), size: bytes.u32(at + 16), offset: bytes.u32(at + 20) }
  })
  const place = (address) => {
    const section = sections.find((s) => address >= s.address && address < s.address + s.size)
    if (!section) throw new Error(`has nothing at address ${address}`)
    return address - section.address + section.offset
  }
  const directory = (i) => bytes.u32(optional + 112 + i * 8)
  const list = (start, size, name) => {
    const found = []
    for (let at = start && place(start); at && bytes.u32(at + name) !== 0; at += size)
      found.push(bytes.text(place(bytes.u32(at + name))))
    return found
  }
  return {
    format: 'pe',
    machine: peMachines[bytes.u16(header + 4)] ?? `machine ${bytes.u16(header + 4)}`,
    libraries: list(directory(1), 20, 12),
    delayed: list(directory(13), 32, 4),
    versions: [],
    imports: [],
    exports: peExports(bytes, directory(0), place)
  }
}

function peExports(bytes, address, place) {
  if (!address) return []
  const at = place(address)
  const names = place(bytes.u32(at + 32))
  return each(bytes.u32(at + 24), (i) => bytes.text(place(bytes.u32(names + i * 4))))
}

/** What the library needs and offers; throws an Error that says why it cannot be told. */
export function readBinary(buffer) {
  const bytes = new Bytes(buffer)
  if (buffer.length < 64) throw new Error('is too short for a library')
  try {
    if (buffer.readUInt32BE(0) === 0x7f454c46) return readElf(bytes)
    if (buffer.readUInt32LE(0) === 0xfeedfacf) return readMachO(bytes)
    if (buffer.readUInt16BE(0) === 0x4d5a) return readPe(bytes)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    throw new Error('ends before what its header promises')
  }
  throw new Error('is neither an ELF nor a Mach-O nor a PE file')
}
