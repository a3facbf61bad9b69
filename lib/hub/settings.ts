/** Where the hub is, who we are there, and where files go: from options, the environment and the system's conventions. */
import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { PaliGemmaError } from '../base/errors'
import { show } from '../base/validate'

type Environment = Record<string, string | undefined>

export interface HubSettings {
  /** Without a slash at its end. */
  endpoint: string
  token: string | undefined
  /** Our own cache: converted models, unfinished downloads, locks. */
  cacheDir: string
  /** The cache of Hugging Face's Python library: files that it has are not downloaded again. */
  hubCacheDir: string
}

function setting(env: Environment, name: string): string | undefined {
  const value = env[name]?.trim()
  return value === '' ? undefined : value
}

/**
 * Where this package keeps downloaded models: `PALIGEMMA_CACHE`, else `paligemma` in the system's cache folder
 * (`XDG_CACHE_HOME` or ~/.cache, ~/Library/Caches, `LOCALAPPDATA`).
 */
export function cacheDirectory(env: Environment = process.env, platform: string = process.platform): string {
  const own = setting(env, 'PALIGEMMA_CACHE')
  if (own) return own
  if (platform === 'win32')
    return join(setting(env, 'LOCALAPPDATA') ?? join(homedir(), 'AppData', 'Local'), 'paligemma')
  if (platform === 'darwin') return join(homedir(), 'Library', 'Caches', 'paligemma')
  return join(xdgCache(env), 'paligemma')
}

/** The XDG specification: relative values are to be ignored. */
function xdgCache(env: Environment): string {
  const xdg = setting(env, 'XDG_CACHE_HOME')
  return xdg && isAbsolute(xdg) ? xdg : join(homedir(), '.cache')
}

export interface SettingOptions {
  endpoint?: string | undefined
  token?: string | false | undefined
  cacheDir?: string | undefined
}

/** Options win over the environment; names and defaults of the latter are those of Hugging Face's own library. */
export async function hubSettings(options: SettingOptions = {}, env: Environment = process.env): Promise<HubSettings> {
  const home = setting(env, 'HF_HOME') ?? join(xdgCache(env), 'huggingface')
  return {
    endpoint: checkEndpoint(
      options.endpoint ?? setting(env, 'HF_ENDPOINT') ?? 'https://huggingface.co',
      options.endpoint === undefined ? 'HF_ENDPOINT' : 'endpoint'
    ),
    token:
      options.token === false
        ? undefined
        : checkToken(
            options.token ??
              setting(env, 'HF_TOKEN') ??
              setting(env, 'HUGGING_FACE_HUB_TOKEN') ??
              (await storedToken(setting(env, 'HF_TOKEN_PATH') ?? join(home, 'token')))
          ),
    cacheDir: options.cacheDir ?? cacheDirectory(env),
    hubCacheDir: setting(env, 'HF_HUB_CACHE') ?? join(home, 'hub')
  }
}

function checkEndpoint(value: string, name: string): string {
  let url: URL | undefined
  try {
    url = new URL(value)
  } catch {
    /* reported below */
  }
  if (!url || !['http:', 'https:'].includes(url.protocol) || url.username || url.password || url.search || url.hash) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected an http or https URL without user, query and fragment for ${name} but received ${show(value)}`
    )
  }
  return url.href.replace(/\/+$/, '')
}

/** The token never appears in a message. */
function checkToken(token: string | undefined): string | undefined {
  const trimmed = token?.trim()
  if (!trimmed) return undefined
  if (!/^[\x21-\x7e]+$/.test(trimmed)) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      'Expected an access token (hf_...) for HF_TOKEN but received text with spaces or other characters that no token has'
    )
  }
  return trimmed
}

/** What `hf auth login` writes. */
async function storedToken(path: string): Promise<string | undefined> {
  return await readFile(path, 'utf8').catch(() => undefined)
}
