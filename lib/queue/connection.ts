/** BullMQ, which is only there where somebody wants a queue, and its way to Redis. */
import type * as Bull from 'bullmq'
import { PaliGemmaError } from '../base/errors'
import { isRecord, isUrl } from '../base/realms'
import { rule, type Rule, type Rules } from '../base/validate'

/** Where a queue lives. */
export interface ConnectionOptions {
  /** "redis://host:6379", "rediss://user:password@host:6380/1", or options or a client of ioredis. */
  redis: string | URL | object
  /** Name of the queue; default "paligemma". */
  name?: string | undefined
  /** Before all of Redis's keys; default "bull". */
  prefix?: string | undefined
  /** Milliseconds in which Redis must answer at the start; default 10,000. Later it may be away for any time. */
  connectTimeoutMs?: number | undefined
}

const redisRule: Rule = {
  expected: 'redis: or rediss: URL, or options or a client of ioredis',
  take: (v) => (isUrl(v) ? v.href : v),
  accepts: (v) => (typeof v === 'string' ? /^rediss?:\/\//i.test(v) && URL.canParse(v) : isRecord(v))
}

export const connectionRules: Rules<ConnectionOptions> = {
  redis: redisRule,
  // BullMQ's own separator
  name: { expected: 'non-empty text without ":"', accepts: (v) => typeof v === 'string' && /^[^:]+$/.test(v) },
  prefix: rule.path,
  connectTimeoutMs: rule.integer(1, 2 ** 31 - 1)
}

const longestPauseMs = 2000

/** What BullMQ takes; requests wait for a Redis that is away. */
export function bullOptions({ redis, name = 'paligemma', prefix }: ConnectionOptions): {
  name: string
  options: { connection: Bull.ConnectionOptions; prefix?: string }
} {
  const retryStrategy = (times: number): number => Math.min(50 * times, longestPauseMs)
  const connection =
    typeof redis === 'string' ? { url: redis, maxRetriesPerRequest: null, retryStrategy } : (redis as object)
  return { name, options: { connection, ...(prefix !== undefined && { prefix }) } }
}

/** @throws PaliGemmaError ERR_DEPENDENCY_MISSING */
export function loadBull(): typeof Bull {
  try {
    // not import(): test runners' contexts have none
    require('ioredis')
    return require('bullmq') as typeof Bull
  } catch (cause) {
    const [because] = String((cause as Error).message).split('\n')
    throw new PaliGemmaError(
      'ERR_DEPENDENCY_MISSING',
      `The queue needs BullMQ and its Redis client: npm install bullmq ioredis (${because})`,
      { cause }
    )
  }
}

/** The place without user and password. */
export function placeOf(redis: ConnectionOptions['redis']): string {
  if (typeof redis !== 'string') return 'Redis'
  const { protocol, host, pathname } = new URL(redis)
  return `${protocol}//${host}${pathname}`
}

/** Waits for the first answer. Rejects with ERR_DOWNLOAD_FAILED. */
export async function connected(
  { redis, connectTimeoutMs = 10_000 }: ConnectionOptions,
  ready: Promise<unknown>,
  lastError: () => Error | undefined
): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      const cause = lastError()
      const because = cause ? `: ${cause.message || (cause as NodeJS.ErrnoException).code}` : ''
      reject(
        new PaliGemmaError(
          'ERR_DOWNLOAD_FAILED',
          `${placeOf(redis)} did not answer within ${connectTimeoutMs} ms${because}. Is Redis running there?`,
          { cause }
        )
      )
    }, connectTimeoutMs)
  })
  try {
    await Promise.race([ready, late])
  } finally {
    clearTimeout(timer)
  }
}
