/** The parts of bench/peers.mjs that need neither an installed peer nor a network. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { tempDir } from '../support/convert-helpers'

const load = async (name: string) => await import(new URL(`../../bench/peers/${name}.mjs`, import.meta.url).href)
const { OnnxFile } = await load('onnx-file')
const { varint } = await load('protobuf')
const { parseOptions, jobNames } = await load('options')
const { compared, markdown, summary } = await load('report')
const { textModel, visionModel } = await load('onnx-graphs')

type Field = number | Buffer

/** A message's fields by number, read as the format's definition says; fixed32 as floats. */
function parse(bytes: Buffer): Map<number, Field[]> {
  const fields = new Map<number, Field[]>()
  let at = 0
  const number = () => {
    let value = 0n
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++]!
      value |= BigInt(byte & 127) << shift
      if (byte < 128) return Number(BigInt.asIntN(64, value))
    }
  }
  while (at < bytes.length) {
    const tag = number()
    const read = {
      0: number,
      2: () => {
        const length = number()
        at += length
        return bytes.subarray(at - length, at)
      },
      5: () => bytes.readFloatLE((at += 4) - 4)
    }[tag & 7]
    if (!read) throw new Error(`wire type ${tag & 7}`)
    fields.set(tag >> 3, [...(fields.get(tag >> 3) ?? []), read()])
  }
  return fields
}
const messages = (fields: Map<number, Field[]>, field: number) =>
  (fields.get(field) ?? []).map((b) => parse(b as Buffer))
const texts = (fields: Map<number, Field[]>, field: number) => (fields.get(field) ?? []).map(String)

/** A node's type, inputs, outputs and attributes. */
function nodeOf(fields: Map<number, Field[]>) {
  const attributes = messages(fields, 5).map((a) => {
    const [type] = a.get(20) as number[]
    const field = { 1: 2, 2: 3, 3: 4, 7: 8 }[type as 1 | 2 | 3 | 7]
    const values = a.get(field)!.map((value) => (typeof value === 'number' ? value : String(value)))
    return [texts(a, 1)[0]!, type === 7 ? values : values[0]!]
  })
  return {
    type: texts(fields, 4)[0],
    domain: texts(fields, 7)[0],
    inputs: texts(fields, 1),
    outputs: texts(fields, 2),
    attributes: Object.fromEntries(attributes) as Record<string, unknown>
  }
}
const graphOf = (path: string) => messages(parse(readFileSync(path)), 7)[0]!

describe('the ONNX writer', () => {
  it('writes numbers as protocol buffers do', () => {
    expect([...varint(0)]).toEqual([0])
    expect([...varint(300)]).toEqual([0xac, 2])
    expect([...varint(-1)]).toEqual([255, 255, 255, 255, 255, 255, 255, 255, 255, 1])
  })

  it('gives back what went in', () => {
    const path = join(tempDir(), 'm.onnx')
    const file = new OnnxFile(path)
    const x = file.input('x', 'float', [1, 'tokens', 4])
    const small = file.constant('float', [2], new Float32Array([1.5, -2]))
    const first = file.weight('int8', [4, 3])
    const second = file.weight('float', [5], 0.25)
    const attributes = { axis: -1, epsilon: { float: 0.5 }, mode: 'tanh', perm: [1, 0] }
    const [, y] = file.node('Thing', [x, '', small], { attributes, domain: 'com.microsoft', outputs: 2 })
    file.node('Identity', [y], { named: ['y'] })
    file.output('y', 'int64', [])
    file.save()

    const model = parse(readFileSync(path))
    expect(model.get(1)).toEqual([10])
    const opsets = messages(model, 8).map((opset) => [texts(opset, 1)[0], opset.get(2)![0]])
    expect(opsets).toEqual([
      ['', 21],
      ['com.microsoft', 1]
    ])
    const graph = graphOf(path)
    const [thing, identity] = messages(graph, 1).map(nodeOf)
    expect(thing).toMatchObject({ type: 'Thing', domain: 'com.microsoft', inputs: ['x', '', small] })
    expect(thing!.attributes).toEqual({ axis: -1, epsilon: 0.5, mode: 'tanh', perm: [1, 0] })
    expect(identity).toMatchObject({ type: 'Identity', inputs: [thing!.outputs[1]], outputs: ['y'] })

    const [constant, bytes, floats] = messages(graph, 5)
    expect([...new Float32Array(new Uint8Array(constant!.get(9)![0] as Buffer).buffer)]).toEqual([1.5, -2])
    expect([constant!.get(1), constant!.get(2)]).toEqual([[2], [1]])
    const place = (tensor: Map<number, Field[]>) =>
      Object.fromEntries(messages(tensor, 13).map((entry) => [texts(entry, 1)[0], texts(entry, 2)[0]]))
    expect([texts(bytes!, 8), bytes!.get(1), bytes!.get(2), bytes!.get(14)]).toEqual([[first], [4, 3], [3], [1]])
    expect(place(bytes!)).toEqual({ location: 'm.onnx_data', offset: '0', length: '12' })
    expect([texts(floats!, 8), place(floats!)]).toEqual([
      [second],
      { location: 'm.onnx_data', offset: '4096', length: '20' }
    ])
    const data = readFileSync(`${path}_data`)
    expect(data.length).toBe(4116)
    expect([0, 4, 16].map((at) => data.readFloatLE(4096 + at))).toEqual([0.25, 0.25, 0.25])
    expect(new Set(data.subarray(0, 12)).size).toBeGreaterThan(6)

    const [input] = messages(graph, 11)
    const [type] = messages(messages(input!, 2)[0]!, 1)
    const dims = messages(messages(type!, 2)[0]!, 1).map((dim) => dim.get(1)?.[0] ?? texts(dim, 2)[0])
    expect([texts(input!, 1), type!.get(1), dims]).toEqual([['x'], [1], [1, 'tokens', 4]])
  })
})

const text = {
  ...{ hidden: 64, ffn: 128, layers: 2, heads: 4, kvHeads: 2, headDim: 16, normEps: 1e-6, ropeTheta: 10000 },
  ...{ queryPreAttnScalar: 16, attnSoftcap: 50, finalSoftcap: 30 }
}
const vision = { hidden: 32, ffn: 48, layers: 2, heads: 2, patchSize: 2, tokens: 4, normEps: 1e-6 }

/** Every name that a node reads is written before it: onnxruntime would refuse the file otherwise. */
function expectSorted(graph: Map<number, Field[]>) {
  const known = new Set(['', ...[5, 11].flatMap((f) => messages(graph, f).map((v) => texts(v, f === 5 ? 8 : 1)[0]!))])
  for (const node of messages(graph, 1).map(nodeOf)) {
    expect(node.inputs.filter((name) => !known.has(name))).toEqual([])
    for (const name of node.outputs) known.add(name)
  }
  for (const output of messages(graph, 12)) expect(known).toContain(texts(output, 1)[0])
}

describe('the models of the peers', () => {
  const count = (graph: Map<number, Field[]>, type: string) =>
    messages(graph, 1).filter((node) => nodeOf(node).type === type).length

  it('have the products of a tower of int8', () => {
    const graph = graphOf(visionModel(join(tempDir(), 'v.onnx'), { vision, text }, 'int8'))
    expectSorted(graph)
    // patches, six a layer, projector; q, k and v share their activations
    expect(count(graph, 'MatMulInteger')).toBe(1 + 6 * vision.layers + 1)
    expect(count(graph, 'DynamicQuantizeLinear')).toBe(1 + 4 * vision.layers + 1)
    expect(count(graph, 'MultiHeadAttention')).toBe(vision.layers)
  })

  it.each([
    ['int8', 'MatMulInteger'],
    ['int4', 'MatMulNBits'],
    ['float', 'MatMul']
  ])('have the products of a text model of %s', (weights, operator) => {
    const path = join(tempDir(), 't.onnx')
    const graph = graphOf(textModel(path, { text, vocab: 96 }, weights, { positions: 32, ids: weights === 'float' }))
    expectSorted(graph)
    expect(count(graph, operator)).toBe(5 * text.layers + 1)
    expect(count(graph, 'GroupQueryAttention')).toBe(text.layers)
    expect(messages(graph, 12).map((output) => texts(output, 1)[0])).toContain('present.1.value')
  })
})

describe('options', () => {
  it('have defaults for the machine', () => {
    const expected = { size: '3b-224', threads: [1, 2], rounds: 5, tokens: 16, only: jobNames }
    expect(parseOptions([], 8)).toMatchObject(expected)
    expect(parseOptions([], 1).threads).toEqual([1])
  })

  it('are read', () => {
    const args = ['--size', 'small', '--threads', '2,4', '--only', 'vision,llama-q4_0', '--dir', 'd', '--json', 'f']
    const expected = { size: 'small-224', threads: [2, 4], only: ['vision', 'llama-q4_0'], dir: 'd', json: 'f' }
    expect(parseOptions(args)).toMatchObject(expected)
  })

  it.each([
    [['--size', '9b'], '3b, small for --size but received 9b'],
    [['--threads', '1,x'], 'for --threads but received 1,x'],
    [['--rounds', '0'], 'for --rounds but received 0'],
    [['--only', 'torch'], 'for --only but received torch']
  ])('that are wrong are named: %j', (args, message) => {
    expect(() => parseOptions(args)).toThrow(message)
  })
})

describe('the report', () => {
  const runs = (...ms: number[]) => ms.map((value) => ({ ms: value, cpuMs: value / 2 }))

  it('has medians and ranges', () => {
    expect(summary(runs(40, 10, 20))).toEqual({ ms: 20, range: [10, 40], cpuMs: 10, cpuRange: [5, 20] })
    expect(summary(runs(10, 20)).ms).toBe(15)
  })

  it('has ratios above 1 where ours is faster, and shares of the limit', () => {
    const theirs = [30, 60, 45].map((ms) => ({ ms, cpuMs: 12 }))
    const names = ['a', 'b']
    const share = (ms: number) => 8 / ms
    const row = compared({ part: 'vision', threads: 1, names, ours: runs(20, 25, 10), theirs, share })
    expect(row.ratio).toEqual({ clock: 2.25, processor: 1.2 })
    expect(row.share).toBe(0.4)
    const report = {
      ...{ command: 'node bench/peers.mjs', date: '2026-11-29T10:00:00Z', size: '3b-224', prefill: 266, tokens: 4 },
      ...{ rounds: 3, limits: [{ threads: 1, readGBps: 12, int8Gops: 160 }], rows: [row] },
      machine: { cpu: 'Some', cores: 2, isa: 'avx2', node: 'v20', load: [1, 2] },
      leftOut: [{ name: 'llama-q8_0', why: 'npm install failed' }]
    }
    const shown = markdown(report)
    expect(shown).toContain(
      '| vision, a | 1 | 20 (10-25); 10 of a processor | b | 45 (30-60); 12 of a processor | 2.25 | 1.2 | 40 % |'
    )
    expect(shown).toContain('8-bit peak 160 GOPS')
    expect(shown).toContain('Left out: llama-q8_0: npm install failed')
    expect(shown).not.toContain('Of a prefill')
    expect(markdown({ ...report, prefillWork: { part: 0.7, at3b: 0.965 } })).toContain(
      'Of a prefill ours computes 70 % (of the last layer only what is asked for), the peers all of it; of 26 layers ' +
        'it would be 97 %, and the ratios of prefill 0.73 times these.'
    )
  })
})
