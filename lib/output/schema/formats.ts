/** JSON Schema's formats of strings, as regular expressions; parts of what each allows, bounded in length. */

const month31 = '(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])'
const month30 = '(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)'
const february = '02-(?:0[1-9]|1[0-9]|2[0-8])'
// 2024, 2000, but not 1900
const leapYear = '(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)'
const date = `(?:[1-9][0-9]{3}-(?:${month31}|${month30}|${february})|${leapYear}-02-29)`
const clock = '(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?'
const offset = '(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])'
const byte = '(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])'
const ipv4 = `${byte}(?:\\.${byte}){3}`
const h = '[0-9a-fA-F]{1,4}'
const ipv6 = [
  `(?:${h}:){7}${h}`,
  ...[1, 2, 3, 4, 5, 6].map((after) => `(?:${h}:){1,${7 - after}}(?::${h}){1,${after}}`),
  `(?:${h}:){1,7}:`,
  `:(?::${h}){1,7}`,
  '::'
].join('|')
const label = '[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?'
const hostname = `(?:${label}\\.){1,4}[A-Za-z]{2,18}`
const word = '[A-Za-z0-9_+-]{1,20}'
const route = '(?:\\/[A-Za-z0-9._~-]{0,40}){0,8}(?:\\?[A-Za-z0-9._~=&-]{0,60})?'
const uri = `https?:\\/\\/${hostname}(?::[1-9][0-9]{0,3})?${route}`
const n = (unit: string, then = ''): string => `[0-9]{1,4}${unit}${then}`
const days = `(?:${n('Y', `(?:${n('M', `(?:${n('D')})?`)})?`)}|${n('M', `(?:${n('D')})?`)}|${n('D')})`
const times = `T(?:${n('H', `(?:${n('M', `(?:${n('S')})?`)})?`)}|${n('M', `(?:${n('S')})?`)}|${n('S')})`
const uuid = '[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}'

export const formats: Readonly<Record<string, string>> = {
  date,
  time: clock + offset,
  'date-time': `${date}T${clock}${offset}`,
  duration: `P(?:${days}(?:${times})?|${times}|${n('W')})`,
  uuid,
  uuid4: '[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-4[0-9a-fA-F]{3}-[89abAB][0-9a-fA-F]{3}-[0-9a-fA-F]{12}',
  email: `${word}(?:\\.${word}){0,2}@${hostname}`,
  hostname,
  ipv4,
  ipv6: `(?:${ipv6})`,
  uri,
  url: uri
}

/** What no text of a format is longer than, where that is much: a larger `maxLength` beside it says nothing. */
export const longest: Readonly<Record<string, number>> = { email: 213, hostname: 150, uri: 552, url: 552 }

/** Where a `pattern` stands beside it, the time's offset may be missing: zod's `z.iso.time()` has none. */
export const timeBesidePattern = `${clock}${offset}?`

/** JSON Schema's own formats that are not above: they say more than a `pattern` beside them. */
const unsupported = new Set(
  'idn-email idn-hostname iri iri-reference uri-reference uri-template json-pointer relative-json-pointer'.split(' ')
)

/** Whether the `pattern` beside a format says all: names that JSON Schema does not know are the libraries' own. */
export const isSaidBy = (format: unknown): boolean =>
  typeof format === 'string' && !Object.hasOwn(formats, format) && !unsupported.has(format)

/** Formats of Pydantic (`SecretStr`, `Path`) and OpenAPI that any text has. */
export const isAnyText = (format: unknown): boolean => format === 'password' || format === 'path'

/** Patterns that every text of our format matches; to hold a text to both would take millions of states. */
const implied: Readonly<Record<string, string>> = {
  // zod's
  hostname:
    '^(?=.{1,253}\\.?$)[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?' +
    '(?:\\.[a-zA-Z0-9](?:[-0-9a-zA-Z]{0,61}[0-9a-zA-Z])?)*\\.?$'
}

export const isImplied = (pattern: unknown, format: unknown): boolean =>
  typeof format === 'string' && Object.hasOwn(implied, format) && implied[format] === pattern

/** Of integers: what each can hold, at most what JavaScript holds exactly. */
export const integerFormats: Readonly<Record<string, [number, number]>> = {
  int8: [-128, 127],
  uint8: [0, 255],
  int16: [-32768, 32767],
  uint16: [0, 65535],
  int32: [-(2 ** 31), 2 ** 31 - 1],
  uint32: [0, 2 ** 32 - 1],
  int64: [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER],
  uint64: [0, Number.MAX_SAFE_INTEGER],
  safeint: [Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER]
}
