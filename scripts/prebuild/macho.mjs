// Zig's linker leaves in a library for macOS what nobody reads: the names of all functions, and, though they are
// hidden, a second time as exports. They are a quarter of the engine. What loads it needs the entrance and the names
// that the engine wants of others; the rest goes, what lay behind it moves up, and the signature is made anew.
import { createHash } from 'node:crypto'

// <mach-o/loader.h>, <mach-o/nlist.h>
const [segment, symtab, dysymtab, signature, dyldInfo] = [0x19, 0x2, 0xb, 0x1d, 0x80000022]
const otherData = [0x26, 0x29] // function starts, data in code
const otherFixups = [0x80000033, 0x80000034] // of newer linkers, in the place of `dyldInfo`
const [external, privateExternal, typeOf, nowhere] = [0x01, 0x10, 0x0e, 0x00]
const localEntry = 0x80000000
const [nameBytes, symbolBytes] = [4, 16]

const aligned = (size, to) => Math.ceil(size / to) * to

function commandsOf(file) {
  const found = []
  for (let i = file.readUInt32LE(16), at = 32; i > 0; i--, at += file.readUInt32LE(at + 4))
    found.push({ kind: file.readUInt32LE(at), at })
  return found
}

/** One number of a trie, and where it ends. */
function readNumber(bytes, at) {
  let value = 0
  for (let shift = 0; ; shift += 7, at++) {
    value += (bytes[at] & 127) * 2 ** shift
    if (bytes[at] < 128) return [value, at + 1]
  }
}

/** What the trie of exports says of each name: flags and address, as they lie there. */
function exportsOf(trie, at = 0, name = '', found = new Map()) {
  const [size, start] = readNumber(trie, at)
  if (size > 0) found.set(name, trie.subarray(start, start + size))
  let next = start + size + 1
  for (let children = trie[start + size]; children > 0; children--) {
    const end = trie.indexOf(0, next)
    const [child, after] = readNumber(trie, end + 1)
    exportsOf(trie, child, name + trie.toString('latin1', next, end), found)
    next = after
  }
  return found
}

/** A trie of one level: each name is an edge of the root. */
function trieOf(entries) {
  const heads = entries.map(([name]) => Buffer.from(`${name}\0`, 'latin1'))
  let place = heads.reduce((sum, head) => sum + head.length + 2, 2)
  const root = [Buffer.from([0, entries.length])]
  const leaves = []
  for (const [i, [, value]] of entries.entries()) {
    root.push(heads[i], Buffer.from([(place & 127) | 128, place >> 7]))
    leaves.push(Buffer.from([value.length, ...value, 0]))
    place += value.length + 2
  }
  return Buffer.concat([...root, ...leaves])
}

/** The table without the names of this library's own, but for `entrances`; and where each entry of the old one went. */
function symbolsOf(file, at, entrances) {
  const [symbols, count, names] = [8, 12, 16].map((field) => file.readUInt32LE(at + field))
  const all = Array.from({ length: count }, (_, old) => {
    const bytes = Buffer.from(file.subarray(symbols + old * symbolBytes, symbols + (old + 1) * symbolBytes))
    const start = names + bytes.readUInt32LE(0)
    const name = file.toString('latin1', start, file.indexOf(0, start))
    const isExternal = (bytes[nameBytes] & (external | privateExternal)) === external
    return { old, bytes, name, isExternal, wanted: (bytes[nameBytes] & typeOf) === nowhere }
  }).filter(({ name, isExternal, wanted }) => isExternal && (wanted || entrances.includes(name)))
  const kept = [...all.filter(({ wanted }) => !wanted), ...all.filter(({ wanted }) => wanted)]
  const texts = [Buffer.from([0])]
  let place = 1
  for (const { bytes, name } of kept) {
    bytes.writeUInt32LE(place, 0)
    texts.push(Buffer.from(`${name}\0`, 'latin1'))
    place += name.length + 1
  }
  return {
    table: Buffer.concat(kept.map(({ bytes }) => bytes)),
    names: Buffer.concat(texts),
    own: kept.filter(({ wanted }) => !wanted).length,
    count: kept.length,
    places: new Map(kept.map(({ old }, i) => [old, i]))
  }
}

/** The same signature of other pages. */
function signed(old, file) {
  const start = old.readUInt32BE(16)
  const [hashes, pageBytes] = [old.readUInt32BE(start + 16), 2 ** old[start + 39]]
  const pages = Math.ceil(file.length / pageBytes)
  const head = Buffer.from(old.subarray(0, start + hashes))
  const sums = Array.from({ length: pages }, (_, i) =>
    createHash('sha256')
      .update(file.subarray(i * pageBytes, (i + 1) * pageBytes))
      .digest()
  )
  const bytes = Buffer.concat([head, ...sums])
  bytes.writeUInt32BE(bytes.length, 4)
  bytes.writeUInt32BE(bytes.length - start, start + 4)
  bytes.writeUInt32BE(pages, start + 28)
  bytes.writeUInt32BE(file.length, start + 32)
  return bytes
}

/** The parts of the file's last segment, each with the place of its offset in the commands; replaced where given. */
function partsOf(file, commands, symbols, entrances) {
  const part = (at, size, bytes, setSize) => {
    const offset = file.readUInt32LE(at)
    return { at, offset, bytes: bytes ?? file.subarray(offset, offset + size), setSize }
  }
  return commands.flatMap(({ kind, at }) => {
    const word = (field) => file.readUInt32LE(at + field)
    if (kind === dyldInfo) {
      const [offset, size] = [word(40), word(44)]
      const found = exportsOf(file.subarray(offset, offset + size))
      const trie = trieOf(entrances.filter((name) => found.has(name)).map((name) => [name, found.get(name)]))
      const others = [8, 16, 24, 32].map((field) => part(at + field, word(field + 4)))
      return [...others, part(at + 40, size, trie, (head) => head.writeUInt32LE(trie.length, at + 44))]
    }
    if (otherData.includes(kind)) return [part(at + 8, word(12))]
    if (kind === symtab) {
      const table = part(at + 8, 0, symbols.table, (head) => head.writeUInt32LE(symbols.count, at + 12))
      const names = part(at + 16, 0, symbols.names, (head) => head.writeUInt32LE(symbols.names.length, at + 20))
      return [table, names]
    }
    if (kind !== dysymtab) return []
    const entries = Buffer.from(file.subarray(word(56), word(56) + word(60) * 4))
    for (let i = 0; i < entries.length; i += 4) {
      const old = entries.readUInt32LE(i)
      if (old < localEntry) entries.writeUInt32LE(symbols.places.get(old) ?? localEntry, i)
    }
    const counts = [0, 0, 0, symbols.own, symbols.own, symbols.count - symbols.own]
    return [
      part(at + 56, 0, entries, (head) => {
        for (const [i, value] of counts.entries()) head.writeUInt32LE(value, at + 8 + i * 4)
      })
    ]
  })
}

/** The library `file` without names that nobody reads; `entrances` stay. */
export function withoutNames(file, entrances) {
  const commands = commandsOf(file)
  if (commands.some(({ kind }) => otherFixups.includes(kind)))
    throw new Error('is linked in a way that is not known here')
  const one = (wanted) => commands.find(({ kind }) => kind === wanted)?.at
  const last = commands.findLast(
    ({ kind, at }) => kind === segment && /^__LINKEDIT\0/.test(file.toString('latin1', at + 8, at + 24))
  ).at
  const start = Number(file.readBigUInt64LE(last + 40))
  const symbols = symbolsOf(file, one(symtab), entrances)
  // Also what is empty has a place, which must lie inside the file.
  const parts = partsOf(file, commands, symbols, entrances).filter(({ offset }) => offset > 0)
  const head = Buffer.from(file.subarray(0, start))
  const tail = []
  let end = start
  const add = (bytes, at, to) => {
    tail.push(Buffer.alloc(aligned(end, to) - end), bytes)
    head.writeUInt32LE(aligned(end, to), at)
    end = aligned(end, to) + bytes.length
  }
  for (const { at, bytes, setSize } of parts.sort((a, b) => a.offset - b.offset)) {
    add(bytes, at, 8)
    setSize?.(head)
  }
  const sign = one(signature)
  let old
  if (sign) {
    const offset = file.readUInt32LE(sign + 8)
    old = file.subarray(offset, offset + file.readUInt32LE(sign + 12))
    // The pages that are signed hold the commands, which must say by then where the signature will lie.
    add(Buffer.alloc(0), sign + 8, 16)
    const size = signed(old, Buffer.alloc(end)).length
    head.writeUInt32LE(size, sign + 12)
    resize(head, last, end + size - start)
  } else resize(head, last, end - start)
  const unsigned = Buffer.concat([head, ...tail])
  return old ? Buffer.concat([unsigned, signed(old, unsigned)]) : unsigned
}

function resize(head, command, bytes) {
  head.writeBigUInt64LE(BigInt(bytes), command + 48)
  head.writeBigUInt64LE(BigInt(aligned(bytes, 0x4000)), command + 32)
}
