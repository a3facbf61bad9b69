/** Numbers within bounds, as regular expressions of their decimal digits. Pure. */

const power = (n: number): bigint => 10n ** BigInt(n)
const either = (options: string[]): string => (options.length === 1 ? options[0]! : `(?:${options.join('|')})`)
const digits = (first: number, last: number): string => (first === last ? String(first) : `[${first}-${last}]`)

/** Digits of one length from `a` to `b`. */
function sameLength(a: string, b: string): string {
  if (a === b) return a
  if (/^0*$/.test(a) && /^9*$/.test(b)) return `[0-9]{${a.length}}`
  const [first, last] = [Number(a[0]), Number(b[0])]
  const [aRest, bRest] = [a.slice(1), b.slice(1)]
  if (first === last) return a[0] + sameLength(aRest, bRest)
  const options: string[] = []
  const fullFrom = /^0*$/.test(aRest) ? first : first + 1
  const fullTo = /^9*$/.test(bRest) ? last : last - 1
  if (fullFrom > first) options.push(a[0] + sameLength(aRest, '9'.repeat(aRest.length)))
  if (fullFrom <= fullTo) options.push(digits(fullFrom, fullTo) + (aRest.length > 0 ? `[0-9]{${aRest.length}}` : ''))
  if (fullTo < last) options.push(b[0] + sameLength('0'.repeat(bRest.length), bRest))
  return either(options)
}

/** Whole numbers >= 0 without leading zeros. */
function naturals(least: bigint, most: bigint): string {
  const options: string[] = []
  for (let length = String(least).length; length <= String(most).length; length++) {
    const from = length === 1 ? 0n : power(length - 1)
    const to = power(length) - 1n
    options.push(sameLength(String(least > from ? least : from), String(most < to ? most : to)))
  }
  return either(options)
}

const max = (a: bigint, b: bigint): bigint => (a > b ? a : b)

/** Both signs of a range: `positive` writes what is >= 0. */
function signed(least: bigint, most: bigint, positive: (least: bigint, most: bigint) => string): string {
  const options: string[] = []
  if (most >= 0n) options.push(positive(max(least, 0n), most))
  if (least < 0n) options.push(`-${positive(max(-most, 1n), -least)}`)
  return either(options)
}

/** Integers from `least` to `most`, which is not less. */
export function integers(least: bigint, most: bigint): string {
  return signed(least, most, naturals)
}

/**
 * Multiples of `divisor` from `least` to `most`; undefined: there are none. Tens are written as zeros at the end; what
 * is left of the divisor is counted by the engine, up to {@link maxDivisor}; a few are listed.
 */
export function multiples(least: bigint, most: bigint, divisor: bigint): string | 'too large' | undefined {
  const first = least >= 0n ? (least + divisor - 1n) / divisor : -(-least / divisor)
  const last = most >= 0n ? most / divisor : -((-most + divisor - 1n) / divisor)
  if (first > last) return undefined
  if (last - first < 100n)
    return either(Array.from({ length: Number(last - first) + 1 }, (_, i) => String((first + BigInt(i)) * divisor)))
  let zeros = 0
  while (divisor % 10n === 0n) {
    divisor /= 10n
    zeros++
  }
  if (divisor > maxDivisor) return 'too large'
  const [from, to] = [first * divisor, last * divisor]
  const counted = (range: string): string => (divisor === 1n ? range : `(?&(?:${range})(?:-?(?%${divisor})))`)
  if (zeros === 0) return counted(integers(from, to))
  const options: string[] = []
  if (from <= 0n && to >= 0n) options.push('0')
  if (to > 0n) options.push(`${counted(integers(max(from, 1n), to))}0{${zeros}}`)
  if (from < 0n) options.push(`${counted(integers(from, to < 0n ? to : -1n))}0{${zeros}}`)
  return either(options)
}
/** The engine follows so many remainders. */
export const maxDivisor = 400n

/** A lower or upper bound; `open`: the bound itself is not allowed. */
export interface Bound {
  value: number
  open: boolean
}

/** The number times 10^places, rounded to a whole one in the direction given. */
function scaled(value: number, places: number, up: boolean): { whole: bigint; exact: boolean } {
  const [, sign = '', int = '0', fraction = '', exponent = '0'] =
    /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(String(value)) ?? []
  const number = BigInt(`${sign}${int}${fraction}`)
  const shift = Number(exponent) - fraction.length + places
  if (shift >= 0) return { whole: number * power(shift), exact: true }
  const unit = power(-shift)
  const down = number >= 0n ? number / unit : -((-number + unit - 1n) / unit)
  const exact = down * unit === number
  return { whole: up && !exact ? down + 1n : down, exact }
}

const mostDigits = 15

/** Whole numbers that bounds admit, times 10^places. */
function between(low: Bound | undefined, high: Bound | undefined, places: number, most: bigint): [bigint, bigint] {
  let [from, to] = [-most, most]
  if (low) {
    const { whole, exact } = scaled(low.value, places, true)
    from = max(from, low.open && exact ? whole + 1n : whole)
  }
  if (high) {
    const { whole, exact } = scaled(high.value, places, false)
    const last = high.open && exact ? whole - 1n : whole
    if (last < to) to = last
  }
  return [from, to]
}

/** Integers that JavaScript holds exactly, within bounds; least > most: there are none. */
export function integerBounds(low?: Bound, high?: Bound): [least: bigint, most: bigint] {
  return between(low, high, 0, BigInt(Number.MAX_SAFE_INTEGER))
}

/**
 * Decimal numbers within bounds, without exponents; undefined: there are none. At most 15 digits together beside a
 * bound: more could be rounded onto one that is open.
 */
export function decimals(low?: Bound, high?: Bound): string | undefined {
  const largest = Math.max(Math.abs(low?.value ?? 0), Math.abs(high?.value ?? 0))
  const places = mostDigits - (largest < 1 ? 0 : Math.min(String(BigInt(Math.trunc(largest))).length, mostDigits))
  const [from, to] = between(low, high, places, power(mostDigits + places) - 1n)
  return from > to ? undefined : signed(from, to, (least, most) => decimalRange(least, most, places))
}

function decimalRange(least: bigint, most: bigint, places: number): string {
  if (places === 0) return naturals(least, most)
  const unit = power(places)
  const [low, high] = [least / unit, most / unit]
  const fraction = (value: bigint): string => String(value % unit).padStart(places, '0')
  const [zeros, nines] = ['0'.repeat(places), '9'.repeat(places)]
  if (low === high) return low + point(fraction(least), fraction(most))
  const options = [low + point(fraction(least), nines), high + point(zeros, fraction(most))]
  if (high - low > 1n) options.push(`${naturals(low + 1n, high - 1n)}(?:\\.[0-9]{1,${places}})?`)
  return either(options)
}

/** A point and digits which, filled up with zeros, lie from `a` to `b`; nothing where 0 does. */
function point(a: string, b: string): string {
  return /^0*$/.test(a) ? `(?:\\.${someDigits(a, b)})?` : `\\.${someDigits(a, b)}`
}

/** At least one digit. */
function someDigits(a: string, b: string): string {
  const rest = (a: string, b: string): string => {
    if (a === '') return ''
    if (/^0*$/.test(a)) return /^9*$/.test(b) ? `[0-9]{0,${a.length}}` : `(?:${someDigits(a, b)})?`
    return someDigits(a, b)
  }
  const [first, last] = [Number(a[0]), Number(b[0])]
  const [aRest, bRest] = [a.slice(1), b.slice(1)]
  if (first === last) return a[0] + rest(aRest, bRest)
  const options = [a[0] + rest(aRest, '9'.repeat(aRest.length)), b[0] + rest('0'.repeat(bRest.length), bRest)]
  if (last - first > 1)
    options.push(digits(first + 1, last - 1) + rest('0'.repeat(aRest.length), '9'.repeat(aRest.length)))
  return either(options)
}
