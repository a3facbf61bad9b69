/** What `pull` takes and gives. */
import type { convert } from '../convert'
import { rule, type Rules } from '../base/validate'
import type { Environment } from '../base/expand-path'
import type { CachedModel } from './cache'
import type { Fetch, Timing } from './client'
import type { LockTiming } from './lock'
import { isRepositoryPath, isRevision } from './reference'

/** How far `pull` is. */
export interface PullProgress {
  /** A ready GGUF is only downloaded. */
  stage: 'download' | 'convert'
  /** 0..1 of the stage */
  fraction: number
  /** Of the download: bytes that are there; 0 while it converts. */
  bytes: number
  /** Of the download: all bytes; 0 while it converts. */
  totalBytes: number
}

/** What `pull` is about to do; called before the first large download. */
export interface PullPlan {
  /** Of the repository, without revision and type. */
  id: string
  /** The commit that the revision stands for. */
  commit: string
  /** Of the model that results. */
  type: string
  /** Whether weights are converted, or a ready GGUF is taken. */
  converts: boolean
  /** What is downloaded; `present` bytes of it are there already. */
  files: { path: string; bytes: number; present: number }[]
}

/** Options of `pull`. */
export interface PullOptions {
  /** Type of the weights, as for `convert`; default Q8_0, or the only GGUF of a repository without a checkpoint. */
  type?: string | undefined
  /** Type of the vision tower; default Q8_0 in quantized files, else `type`. */
  visionType?: string | undefined
  /** Branch, tag or commit; default "main". */
  revision?: string | undefined
  /** Folder of the repository that the model is in; default: its top, or the only one that has a model. */
  subfolder?: string | undefined
  /** `vae-oid.npz`: its decoder goes into the model, for `segment`. */
  maskDecoder?: string | URL | undefined
  /** Keep the downloaded weights: for another type later. Default false. */
  keep?: boolean | undefined
  /** Convert again though the model is in the cache. Default false. */
  force?: boolean | undefined
  /** Default: `HF_ENDPOINT`, else https://huggingface.co. */
  endpoint?: string | undefined
  /**
   * Access token; default: `HF_TOKEN`, else what `hf auth login` stored. false: none. It is sent to the endpoint only.
   */
  token?: string | false | undefined
  /** Default: `PALIGEMMA_CACHE`, else the system's cache folder. */
  cacheDir?: string | URL | undefined
  /** Used in place of the global one; for proxies. It must leave redirects to the caller (`redirect: 'manual'`). */
  fetch?: Fetch | undefined
  /** Called once a repository, before the first large download; not where the model is in the cache. */
  onPlan?: ((plan: PullPlan) => void) | undefined
  /** Called as bytes come and weights are converted. */
  onProgress?: ((progress: PullProgress) => void) | undefined
  /** What is worth telling a person: a pause before another attempt, waiting for another process. */
  onMessage?: ((message: string) => void) | undefined
  /** Rejects with the signal's reason. What was downloaded is kept, and used by the next pull. */
  signal?: AbortSignal | undefined
}

/** What `pull` made. */
export interface PullResult extends CachedModel {
  /** It was in the cache; nothing was downloaded. */
  cached: boolean
  /** Of an adapter that names its base: the base, which was pulled with it. */
  base?: PullResult
  /** What the conversion had to say. */
  notes: string[]
}

/** What tests replace. @internal */
export interface PullHooks {
  timing?: Partial<Timing> | undefined
  lockTiming?: LockTiming | undefined
  /** Bytes that can be written at a path; undefined: not known. */
  freeBytes?: (path: string) => Promise<number | undefined>
  convert?: typeof convert | undefined
  env?: Environment | undefined
}

const optional = (accepts: (text: string) => boolean, expected: string) => ({
  expected,
  accepts: (v: unknown) => typeof v === 'string' && accepts(v)
})

export const pullRules: Rules<PullOptions> = {
  type: rule.name,
  visionType: rule.name,
  revision: optional(isRevision, 'branch, tag or commit'),
  subfolder: optional(isRepositoryPath, 'folder of the repository'),
  maskDecoder: rule.file,
  keep: rule.flag,
  force: rule.flag,
  endpoint: rule.name,
  token: { expected: 'access token or false', accepts: (v) => typeof v === 'string' || v === false },
  cacheDir: rule.file,
  fetch: rule.function,
  onPlan: rule.callback,
  onProgress: rule.callback,
  onMessage: rule.callback,
  signal: rule.signal
}
