/**
 * Where the hub is, who we are there, and where files go: from options, the environment and the system's conventions.
 */
import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { isAbsolute, join } from 'node:path'
import { privateAllowed } from '../base/addresses'
import { PaliGemmaError } from '../base/errors'
import { type Environment, expandPath } from '../base/expand-path'
import { show } from '../base/validate'
import { absentAs } from '../base/system-limits'

export interface HubSettings {
  /** Without a slash at its end. */
  endpoint: string
  token: string | undefined
  /** What the token is from, for messages: a variable, a file. */
  tokenFrom: string
  /** Our own cache: converted models, unfinished downloads, locks. */
  cacheDir: string
  /** The cache of Hugging Face's Python library: files that it has are not downloaded again. */
  hubCacheDir: string
  /** No request is to be made. The variable that says so. */
  offline: string | undefined
  /** Redirects may lead to addresses inside this network, though the endpoint is outside. */
  allowPrivate: boolean
}

function setting(env: Environment, name: string): string | undefined {
  const value = env[name]?.trim()
  return value === '' ? undefined : value
}

/** A path, with `~` and `$NAME` expanded as Hugging Face's library does. */
function pathSetting(env: Environment, name: string): string | undefined {
  const value = setting(env, name)
  return value === undefined ? undefined : expandPath(value, name, env)
}

/** As Hugging Face's library reads its switches. */
function flag(env: Environment, name: string): boolean {
  return ['1', 'ON', 'YES', 'TRUE'].includes(setting(env, name)?.toUpperCase() ?? '')
}

/**
 * Where this package keeps downloaded models: `PALIGEMMA_CACHE`, else `paligemma` in the system's cache folder
 * (`XDG_CACHE_HOME` or ~/.cache, ~/Library/Caches, `LOCALAPPDATA`).
 */
export function cacheDirectory(env: Environment = process.env, platform: string = process.platform): string {
  const own = pathSetting(env, 'PALIGEMMA_CACHE')
  if (own) return own
  if (platform === 'win32')
    return join(pathSetting(env, 'LOCALAPPDATA') ?? join(homedir(), 'AppData', 'Local'), 'paligemma')
  if (platform === 'darwin') return join(expandPath('~', 'HOME', env), 'Library', 'Caches', 'paligemma')
  return join(xdgCache(env), 'paligemma')
}

/** The XDG specification: relative values are to be ignored. */
function xdgCache(env: Environment): string {
  const xdg = pathSetting(env, 'XDG_CACHE_HOME')
  return xdg && isAbsolute(xdg) ? xdg : join(expandPath('~', 'HOME', env), '.cache')
}

export interface SettingOptions {
  endpoint?: string | undefined
  token?: string | false | undefined
  cacheDir?: string | undefined
}

/** Options win over the environment; names and defaults of the latter are those of Hugging Face's own library. */
export async function hubSettings(options: SettingOptions = {}, env: Environment = process.env): Promise<HubSettings> {
  const home = pathSetting(env, 'HF_HOME') ?? join(xdgCache(env), 'huggingface')
  const { token, from } = await tokenOf(options.token, env, home)
  return {
    endpoint: checkEndpoint(
      options.endpoint ?? setting(env, 'HF_ENDPOINT') ?? 'https://huggingface.co',
      options.endpoint === undefined ? 'HF_ENDPOINT' : 'endpoint'
    ),
    token: checkToken(token, from),
    tokenFrom: from,
    cacheDir: options.cacheDir ?? cacheDirectory(env),
    hubCacheDir: pathSetting(env, 'HF_HUB_CACHE') ?? pathSetting(env, 'HUGGINGFACE_HUB_CACHE') ?? join(home, 'hub'),
    offline: offlineVariable(env),
    allowPrivate: privateAllowed(env)
  }
}

/** `HF_HUB_OFFLINE` decides; only where it is not set does `TRANSFORMERS_OFFLINE`. */
function offlineVariable(env: Environment): string | undefined {
  const name = setting(env, 'HF_HUB_OFFLINE') === undefined ? 'TRANSFORMERS_OFFLINE' : 'HF_HUB_OFFLINE'
  return flag(env, name) ? name : undefined
}

function checkEndpoint(value: string, name: string): string {
  let url: URL | undefined
  try {
    url = new URL(value)
  } catch {
    /* reported below */
  }
  if (!url || !['http:', 'https:'].includes(url.protocol) || url.username || url.password || url.search || url.hash) {
    const shown = /\/\/[^/]*@/.test(value) ? 'one with a user' : show(value)
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected an http or https URL without user, query and fragment for ${name} but received ${shown}` +
        (/^[\w.-]+(?::\d+)?(?:\/|$)/.test(value) ? `; write https://${value}` : '')
    )
  }
  return url.href.replace(/\/+$/, '')
}

/** The token never appears in a message. */
function checkToken(token: string | undefined, from: string): string | undefined {
  const trimmed = token?.trim()
  if (!trimmed) return undefined
  if (!/^[\x21-\x7e]+$/.test(trimmed) || /["'`]/.test(trimmed)) {
    throw new PaliGemmaError(
      'ERR_INVALID_OPTION',
      `Expected an access token (hf_...) for ${from} but received text with spaces, quotes or other characters that ` +
        'no token has'
    )
  }
  return trimmed
}

/** The option, else a variable, else what `hf auth login` wrote. */
async function tokenOf(
  option: string | false | undefined,
  env: Environment,
  home: string
): Promise<{ token: string | undefined; from: string }> {
  if (option !== undefined) return { token: option === false ? undefined : option, from: 'the option token' }
  if (flag(env, 'HF_HUB_DISABLE_IMPLICIT_TOKEN')) return { token: undefined, from: 'HF_TOKEN' }
  for (const from of ['HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN']) {
    const token = setting(env, from)
    if (token !== undefined) return { token, from }
  }
  const file = pathSetting(env, 'HF_TOKEN_PATH') ?? join(home, 'token')
  return { token: await readFile(file, 'utf8').catch(absentAs(undefined)), from: file }
}
