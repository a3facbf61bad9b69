// The few words of protocol buffers that an ONNX file needs: messages are appended field by field.

/** An unsigned or, as 64 bits, a negative integer. */
export function varint(value) {
  let left = BigInt.asUintN(64, BigInt(value))
  const bytes = []
  while (left > 127n) {
    bytes.push(Number(left & 127n) | 128)
    left >>= 7n
  }
  bytes.push(Number(left))
  return Buffer.from(bytes)
}

const wire = { varint: 0, bytes: 2, fixed32: 5 }

export class Message {
  parts = []

  int(field, value) {
    this.parts.push(varint((field << 3) | wire.varint), varint(value))
    return this
  }

  float(field, value) {
    const bytes = Buffer.alloc(4)
    bytes.writeFloatLE(value)
    this.parts.push(varint((field << 3) | wire.fixed32), bytes)
    return this
  }

  /** A string, bytes or a message within this one. */
  bytes(field, value) {
    const bytes = value instanceof Message ? value.finish() : Buffer.from(value)
    this.parts.push(varint((field << 3) | wire.bytes), varint(bytes.length), bytes)
    return this
  }

  finish() {
    return Buffer.concat(this.parts)
  }
}
