/** What generating calls give: types alone. */

/** A token of the output. */
export interface GeneratedToken {
  /** Its number in the vocabulary. */
  id: number
  /** The characters that this token completed; '' for control tokens and parts of a character. */
  text: string
  /** Natural logarithm, before temperature and filters; with `logProbs`. */
  logProb?: number
  /**
   * Of a `<loc>` token: of it or another one at most 16 steps (1/64 of the picture) away; with `logProbs`, not with
   * `beams`.
   */
  nearLogProb?: number
  /** The most probable tokens, best first; with `logProbs: n`. */
  top?: { id: number; text: string; logProb: number }[]
}

/**
 * "stop": the model ended or a stop string came; "length": `maxTokens` or the context; "abort": the stream was left.
 */
export type FinishReason = 'stop' | 'length' | 'abort'

/** What `generate` gives. */
export interface GenerateResult {
  /** Without what ended it: a stop string or the end token. */
  text: string
  /** One for each token of the output, without the end token. */
  tokens: GeneratedToken[]
  /** Why it ended. */
  finishReason: FinishReason
  /** With it as `seed` the same request gives the same text again. 0 where nothing was sampled. */
  seed: number
  /** In tokens; `promptTokens` counts the text only. */
  usage: { imageTokens: number; promptTokens: number; completionTokens: number }
  /**
   * Milliseconds; parts that an abort left unknown are 0. Of requests of a batch whose pictures and prompts pass
   * together each has `visionMs` and `prefillMs` of all of them.
   */
  timings: {
    /** Reading, decoding and resizing the pictures. */
    preprocessMs: number
    /** Waiting for other requests on this model. */
    queueMs: number
    /** Encoding the pictures by the vision tower; about 0 where their features were kept from a request before. */
    visionMs: number
    /** Pictures and prompt through the text model; about 0 where both were kept from a request before. */
    prefillMs: number
    /** From the call to the first token. */
    firstTokenMs: number
    /** From the first token to the last. */
    decodeMs: number
    /** Tokens after the first over `decodeMs`; 0 with fewer than two. */
    decodeTokensPerSecond: number
  }
}

/** What `generate` gives with `constrain: { choices }`: one of them, unless it was cut. */
export type ChoiceResult<Choice extends string> = Omit<GenerateResult, 'text' | 'finishReason'> &
  ({ text: Choice; finishReason: 'stop' } | { text: string; finishReason: 'length' | 'abort' })

/** What one step of a generation adds. */
export interface Chunk {
  /**
   * What can be shown now; '' while a character is incomplete or a stop string may be forming. Joined, the result's
   * text.
   */
  text: string
  /** Missing in a last chunk that only brings text which had been held back. */
  token?: GeneratedToken
}
