// Writes an ONNX file node by node. Large weights go to a file beside it as they are declared, so that a model of
// several GB needs no memory; they are noise. Field numbers are those of onnx.proto3.
import { closeSync, openSync, renameSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { basename } from 'node:path'
import { Message } from './protobuf.mjs'

export const dataType = { float: 1, uint8: 2, int8: 3, int32: 6, int64: 7 }
const bytesOf = { float: 4, uint8: 1, int8: 1, int32: 4, int64: 8 }
const irVersion = 10
const opset = 21
/** Of weights in the data file: they are mapped, and a page is the unit of that. */
const alignment = 4096
const pieceBytes = 8 << 20

/** Mulberry32's bytes: no compression of memory or file system finds anything in them. */
function noiseBytes(bytes) {
  const words = new Uint32Array(bytes / 4)
  let state = 1
  for (let i = 0; i < words.length; i++) {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), state | 1)
    t = (t + Math.imul(t ^ (t >>> 7), t | 61)) ^ t
    words[i] = t ^ (t >>> 14)
  }
  return Buffer.from(words.buffer)
}

export class OnnxFile {
  nodes = []
  initializers = []
  inputs = []
  outputs = []
  names = 0
  offset = 0

  constructor(path) {
    this.path = path
    this.dataName = `${basename(path)}_data`
    this.dataPath = `${path}_data`
    this.file = openSync(this.dataPath, 'w')
    // twice in a row, so that a piece may begin anywhere in the first
    const noise = noiseBytes(pieceBytes)
    this.noise = Buffer.concat([noise, noise])
  }

  /** Adds a node and gives the name of its output; of its outputs where `outputs` says how many. */
  node(type, inputs, { attributes = {}, domain = '', outputs = 1, named } = {}) {
    const names = named ?? Array.from({ length: outputs }, () => `t${this.names++}`)
    const node = new Message()
    for (const input of inputs) node.bytes(1, input)
    for (const output of names) node.bytes(2, output)
    node.bytes(3, `${type}${this.nodes.length}`).bytes(4, type)
    for (const [name, value] of Object.entries(attributes)) node.bytes(5, attribute(name, value))
    if (domain) node.bytes(7, domain)
    this.nodes.push(node)
    return names.length === 1 ? names[0] : names
  }

  /** A small initializer, in the file itself. `values`: a typed array. */
  constant(type, dims, values) {
    const name = `c${this.names++}`
    const bytes = Buffer.from(values.buffer, values.byteOffset, values.byteLength)
    this.initializers.push(tensor(name, type, dims).bytes(9, bytes))
    return name
  }

  /** A large one: noise, or with `fill` that one float everywhere. */
  weight(type, dims, fill) {
    const name = `w${this.names++}`
    const bytes = dims.reduce((product, n) => product * n, bytesOf[type])
    const at = this.append(bytes, fill)
    const entry = (key, value) => new Message().bytes(1, key).bytes(2, String(value))
    this.initializers.push(
      tensor(name, type, dims)
        .bytes(13, entry('location', this.dataName))
        .bytes(13, entry('offset', at))
        .bytes(13, entry('length', bytes))
        .int(14, 1)
    )
    return name
  }

  append(bytes, fill) {
    const at = Math.ceil(this.offset / alignment) * alignment
    const filled = fill === undefined ? undefined : Buffer.from(new Float32Array(pieceBytes / 4).fill(fill).buffer)
    for (let done = 0; done < bytes; ) {
      const piece = Math.min(pieceBytes, bytes - done)
      const start = filled ? 0 : (this.names * 7919 * 64) % pieceBytes
      writeSync(this.file, filled ?? this.noise, start, piece, at + done)
      done += piece
    }
    this.offset = at + bytes
    return at
  }

  /** A dimension is a number, or a name where it changes from run to run. */
  input(name, type, dims) {
    this.inputs.push(valueInfo(name, type, dims))
    return name
  }

  output(name, type, dims) {
    this.outputs.push(valueInfo(name, type, dims))
  }

  /** Writes the file; its name stands for a complete one. */
  save() {
    const graph = new Message()
    for (const node of this.nodes) graph.bytes(1, node)
    graph.bytes(2, 'random')
    for (const initializer of this.initializers) graph.bytes(5, initializer)
    for (const input of this.inputs) graph.bytes(11, input)
    for (const output of this.outputs) graph.bytes(12, output)
    const model = new Message().int(1, irVersion).bytes(2, 'node-paligemma bench').bytes(7, graph)
    for (const [domain, version] of [
      ['', opset],
      ['com.microsoft', 1]
    ])
      model.bytes(8, new Message().bytes(1, domain).int(2, version))
    closeSync(this.file)
    writeFileSync(`${this.path}.part`, model.finish())
    renameSync(`${this.path}.part`, this.path)
  }

  discard() {
    closeSync(this.file)
    rmSync(this.dataPath, { force: true })
  }
}

function tensor(name, type, dims) {
  const message = new Message()
  for (const n of dims) message.int(1, n)
  return message.int(2, dataType[type]).bytes(8, name)
}

function valueInfo(name, type, dims) {
  const shape = new Message()
  for (const n of dims) shape.bytes(1, typeof n === 'number' ? new Message().int(1, n) : new Message().bytes(2, n))
  const tensorType = new Message().int(1, dataType[type]).bytes(2, shape)
  return new Message().bytes(1, name).bytes(2, new Message().bytes(1, tensorType))
}

/** `{ float: x }` is a float, a number an integer. */
function attribute(name, value) {
  const message = new Message().bytes(1, name)
  if (typeof value === 'number') return message.int(3, value).int(20, 2)
  if (typeof value === 'string') return message.bytes(4, value).int(20, 3)
  if (Array.isArray(value)) {
    for (const n of value) message.int(8, n)
    return message.int(20, 7)
  }
  return message.float(2, value.float).int(20, 1)
}
