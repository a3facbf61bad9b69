/** Bytes that come in pieces, kept in memory in proportion to them: a stranger chooses how small the pieces are. */
const [smallestKept, smallestBlock, largestBlock] = [4096, 4096, 1 << 16]

export class Pieces {
  /** Of all pieces. */
  bytes = 0
  private readonly kept: Uint8Array[] = []
  private block: Uint8Array = new Uint8Array(0)
  /** What of the block is among the kept, and what of it is used. */
  private given = 0
  private used = 0

  /** Large pieces are kept as they are; small ones are copied together: an object for each would be larger. */
  add(piece: Uint8Array): void {
    const { length } = piece
    this.bytes += length
    if (length >= smallestKept) {
      this.giveBlock()
      this.kept.push(piece)
      return
    }
    if (this.used + length > this.block.length) {
      this.giveBlock()
      this.block = new Uint8Array(Math.min(Math.max(this.bytes, smallestBlock), largestBlock))
      this.given = this.used = 0
    }
    this.block.set(piece, this.used)
    this.used += length
  }

  private giveBlock(): void {
    if (this.used > this.given) this.kept.push(this.block.subarray(this.given, this.used))
    this.given = this.used
  }

  /** All until now; more may be added. */
  joined(): Buffer {
    this.giveBlock()
    return Buffer.concat(this.kept, this.bytes)
  }
}
