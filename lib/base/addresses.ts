/** Addresses that strangers must not make us ask: this machine, its neighbours and cloud providers' metadata. */
import dns from 'node:dns'
import { lookup } from 'node:dns/promises'
import { BlockList, isIP, type LookupFunction } from 'node:net'

const inside = new BlockList()
for (const [network, prefix] of [
  ['0.0.0.0', 8], // "this" network; 0.0.0.0 is this machine
  ['10.0.0.0', 8],
  ['100.64.0.0', 10], // behind a carrier's NAT
  ['127.0.0.0', 8],
  ['169.254.0.0', 16], // link-local, with the clouds' metadata services
  ['172.16.0.0', 12],
  ['192.0.0.0', 24],
  ['192.168.0.0', 16],
  ['198.18.0.0', 15],
  ['224.0.0.0', 3] // multicast, reserved, broadcast
] as const)
  inside.addSubnet(network, prefix, 'ipv4')
for (const [network, prefix] of [
  ['::', 96], // unspecified, loopback, and IPv4 as it was first written in IPv6
  ['::ffff:0:0:0', 96], // IPv4 behind a translator, as is the next
  ['64:ff9b:1::', 48],
  ['100::', 64], // nobody
  ['2001::', 32], // tunnels, whose end an IPv4 address inside names: Teredo, 6to4
  ['2002::', 16],
  ['fc00::', 7],
  ['fe80::', 10],
  ['fec0::', 10],
  ['ff00::', 8]
] as const)
  inside.addSubnet(network, prefix, 'ipv6')

/** IPv4 inside IPv6 (`::ffff:10.0.0.1`, `64:ff9b::a00:1`) is what it holds. */
export function isPrivateAddress(given: string): boolean {
  const address = given.replace(/%.*$/, '') // which network card
  const family = isIP(address)
  if (family === 4) return inside.check(address, 'ipv4')
  if (family !== 6) return false
  if (inside.check(address, 'ipv6')) return true
  const [high, low] = new URL(`http://[${address}]`).hostname
    .match(/^\[(?:::ffff|64:ff9b:):([0-9a-f]+):([0-9a-f]+)\]$/)
    ?.slice(1)
    .map((part) => Number.parseInt(part, 16)) ?? [undefined, undefined]
  if (high === undefined || low === undefined) return false
  return inside.check([high >> 8, high & 255, low >> 8, low & 255].join('.'), 'ipv4')
}

/**
 * The variable that lets redirects of the hub and pictures' URLs lead into this network; read as the hub's switches
 * are.
 */
export function privateAllowed(env: Record<string, string | undefined> = process.env): boolean {
  return /^(?:1|on|yes|true)$/i.test(env['PALIGEMMA_ALLOW_PRIVATE_ADDRESSES']?.trim() ?? '')
}

export const isThisMachine = (host: string): boolean => /(?:^|\.)localhost\.?$/.test(host)

/** Resolves names for sockets, to public addresses alone: what is checked is what is connected to. */
export function lookUpPublic(
  refused: (address: string) => Error,
  isInside: (address: string) => boolean
): LookupFunction {
  return (host, options, done) =>
    dns.lookup(host, { ...options, all: true }, (error, found) => {
      const inside = error ? undefined : found.find(({ address }) => isInside(address))
      if (error) done(error, '')
      else if (inside) done(refused(inside.address), '')
      else if (options.all) done(null, found)
      else done(null, found[0]!.address, found[0]!.family)
    })
}

/**
 * The first private address that a URL's host stands for; undefined where it has none, or where its name is not looked
 * up (`lookUp` false: somebody else connects, such as a proxy) or not known.
 */
export async function privateAddress(url: URL, lookUp = true): Promise<string | undefined> {
  const host = url.hostname.replace(/^\[|\]$/g, '')
  if (isIP(host)) return isPrivateAddress(host) ? host : undefined
  if (isThisMachine(host)) return host
  if (!lookUp) return undefined
  const found = await lookup(host, { all: true }).catch(() => [])
  return found.find(({ address }) => isPrivateAddress(address))?.address
}
