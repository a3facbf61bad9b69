/** Texts of any length, written piece by piece. */
import { OutputFile, type OutputOptions } from './output-file'

export type Write = (text: string) => Promise<void>

const bufferBytes = 1 << 18

/** A text whose file is whole, or as it was. `option`: what named the path. */
export async function writeText(path: string, option: string, fill: (write: Write) => Promise<void>): Promise<void> {
  const text = await TextOutput.create(path, { option })
  try {
    await fill(async (piece) => await text.write(piece))
    await text.flush()
    await text.file.commit()
  } catch (error) {
    await text.file.discard()
    throw error
  }
}

export class TextOutput {
  private waiting = ''
  private at = 0

  private constructor(readonly file: OutputFile) {}

  static async create(path: string, options: OutputOptions): Promise<TextOutput> {
    return new TextOutput(await OutputFile.create(path, options))
  }

  async write(text: string): Promise<void> {
    this.waiting += text
    if (this.waiting.length > bufferBytes) await this.flush()
  }

  async flush(): Promise<void> {
    const bytes = Buffer.from(this.waiting)
    this.waiting = ''
    await this.file.write(bytes, this.at)
    this.at += bytes.length
  }
}
