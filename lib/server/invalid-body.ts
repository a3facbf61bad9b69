/** What zod found wrong with a request, in the words that clients are told. */
import { ApiError } from './errors'
import type * as z from './schemas/vendored'

/** The first thing that is wrong with a request's body. */
export function invalidBody(error: z.ZodError): ApiError {
  const { path, message, keys } = deepest(tellingFirst(error.issues))
  const param = [...path, ...(keys ?? [])].reduce<string>(
    (text, key) => (typeof key === 'number' ? `${text}[${key}]` : text === '' ? String(key) : `${text}.${String(key)}`),
    ''
  )
  // OpenAI's own words for what it does not know
  const told = keys
    ? `Unrecognized request argument supplied: ${param}`
    : param === ''
      ? message
      : `${param}: ${message.replace(missing, 'Expected $1, but it is not there')}`
  return new ApiError(400, 'ERR_INVALID_OPTION', told, { param: param === '' ? null : param })
}

/** zod's words for a field that is not there. */
const missing = /^Invalid input: expected (.*), received undefined$/

/** Where a field is missing and another one unknown, its name was mistaken. */
function tellingFirst(issues: readonly z.core.$ZodIssue[]): readonly z.core.$ZodIssue[] {
  const unknown = issues.find(({ code }) => code === 'unrecognized_keys')
  return unknown && missing.test(deepest(issues).message) ? [unknown] : issues
}

interface Place {
  path: PropertyKey[]
  message: string
  keys?: PropertyKey[]
}

/** zod's, where a schema has no message of its own. */
const defaultMessage = 'Invalid input'

/** Of the alternatives of a union, the one that got furthest says what was meant. */
function deepest(issues: readonly z.core.$ZodIssue[]): Place {
  const issue = issues[0]!
  if (issue.code === 'unrecognized_keys') return { path: issue.path, message: issue.message, keys: [issue.keys[0]!] }
  if (issue.code !== 'invalid_union' || issue.errors.length === 0) return issue
  const found = issue.errors.filter((branch) => branch.length > 0).map(deepest)
  const far = found.reduce((best, next) => (next.path.length > best.path.length ? next : best), found[0]!)
  const path = [...issue.path, ...far.path]
  if (far.path.length > 0 || far.keys) return { ...far, path }
  if (issue.message !== defaultMessage) return { path, message: issue.message }
  const absent = found.map(({ message }) => missing.exec(message)?.[1])
  if (absent.every((what) => what !== undefined))
    return { path, message: `${defaultMessage}: expected ${[...new Set(absent)].join(' or ')}, received undefined` }
  const expected = new Set(found.map(({ message }) => message.replace(/^Invalid input: /, '')))
  return { path, message: `${defaultMessage}: ${[...expected].join(' or ')}` }
}
