/** The tokenizer on its own, read from any GGUF that has one. */
import { peftDirectory } from '../convert/adapters/peft-folder'
import { namedTokens } from './options/adapters'
import { modelRule } from './options/options'
import { resolveModel } from '../hub/resolve'
import { nativeCall, nativeSync } from '../base/errors'
import { checkReadable } from '../base/permission'
import { native, type NativeTokenizer } from '../engine/native'
import { check, longestText, readOptions, rule, take, type Rule, type Rules } from '../base/validate'

/** Options of {@link Tokenizer.encode}. */
export interface EncodeOptions {
  /** `<bos>`, `<eos>`, `<pad>`, `<unk>` and `<image>` become their ids; default false: they are plain text. */
  allowControlTokens?: boolean | undefined
}

export const encodeRules: Rules<EncodeOptions> = { allowControlTokens: rule.flag }
// Tokenizing is synchronous: this much takes a fifth of a second.
export const textRule: Rule = {
  ...rule.text,
  expected: `string of at most ${longestText} characters (cut longer ones before a space)`
}
export const idsRule = rule.listOf('token ids (integers >= 0)', rule.integer(0, 2 ** 31 - 1).accepts, { most: 1 << 20 })

/** Decodes one token at a time and never shows half a character. Made by {@link Tokenizer.stream}. */
export class TokenStream {
  private readonly decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  private held: Buffer = Buffer.alloc(0)

  /** @internal */
  constructor(private readonly pieceBytes: (id: number) => Uint8Array) {
    check('a new TokenStream', pieceBytes, {
      expected: 'what tokenizer.stream() makes',
      accepts: rule.function.accepts
    })
  }

  /** The text that can be shown after this token; '' while a character is incomplete. */
  push(id: number): string {
    check('id', id, rule.integer(0, 2 ** 31 - 1))
    const bytes = Buffer.concat([this.held, this.pieceBytes(id)])
    const shown = bytes.length - surrogateStart(bytes)
    this.held = bytes.subarray(shown)
    return this.decoder.decode(bytes.subarray(0, shown), { stream: true })
  }

  /** What is left at the end; incomplete bytes become U+FFFD. */
  flush(): string {
    const rest = this.decoder.decode(this.held)
    this.held = Buffer.alloc(0)
    return rest
  }
}

/** Length of a surrogate's first bytes (ED, ED A0..BF) at the end: the engine and the reference wait for its third. */
function surrogateStart(bytes: Buffer): number {
  if (bytes.at(-1) === 0xed) return 1
  return bytes.length > 1 && bytes.at(-2) === 0xed && (bytes.at(-1)! & 0xe0) === 0xa0 ? 2 : 0
}

/** SentencePiece BPE with byte fallback, as Gemma and PaliGemma use it. Made by {@link loadTokenizer}. */
export class Tokenizer {
  /** @internal */
  constructor(private readonly tokenizer: NativeTokenizer) {
    check('a new Tokenizer', tokenizer, {
      expected: 'what loadTokenizer makes',
      accepts: (v) => rule.function.accepts((v as NativeTokenizer).encode)
    })
  }

  /** Number of entries of the vocabulary, padding included. */
  get size(): number {
    return this.tokenizer.size
  }

  /** Token ids of at most 2^20 characters; nothing is added. `<locNNNN>` and `<segNNN>` become their tokens. */
  encode(text: string, options: EncodeOptions = {}): number[] {
    check('text', text, textRule)
    const { allowControlTokens = false } = readOptions<EncodeOptions>('encode', options, encodeRules)
    return nativeSync(() => this.tokenizer.encode(text, allowControlTokens))
  }

  /** The text of token ids; control tokens give nothing, bytes that are not UTF-8 become U+FFFD. */
  decode(ids: number[]): string {
    const list = take('ids', ids, idsRule)
    return nativeSync(() => this.tokenizer.decode(list))
  }

  /** The vocabulary's spelling of a token ("▁cat", "<0x0A>", "<loc0001>"); '' for ids out of range. */
  piece(id: number): string {
    check('id', id, rule.integer(0, 2 ** 31 - 1))
    return nativeSync(() => this.tokenizer.pieceText(id))
  }

  /** A decoder for tokens that arrive one by one. */
  stream(): TokenStream {
    const tokenizer = this.tokenizer
    return new TokenStream((id) => nativeSync(() => tokenizer.pieceBytes(id)))
  }
}

/**
 * Loads the tokenizer of a pulled model, or of a GGUF (any with `tokenizer.ggml.model` = "llama"); no weight is read.
 * @throws PaliGemmaError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED, ERR_NATIVE_MISSING
 */
export async function loadTokenizer(path: string | URL): Promise<Tokenizer> {
  const { path: file, adapters = [] } = await resolveModel(take('path', path, modelRule))
  await checkReadable(file)
  const folders = await Promise.all(adapters.map(async (adapter) => await peftDirectory(adapter.file)))
  const tokens = await namedTokens(folders.filter((dir) => dir !== undefined))
  return new Tokenizer(await nativeCall(() => native().openTokenizer(file, tokens)))
}
