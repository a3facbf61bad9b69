/** Which addresses are inside: of this machine, its network, or a cloud's metadata service. */
import { describe, expect, it } from 'vitest'
import { isPrivateAddress, privateAddress } from '../../lib/base/addresses'

describe('addresses', () => {
  it.each([
    '127.0.0.1',
    '127.1',
    '0.0.0.0',
    '10.1.2.3',
    '172.16.0.1',
    '172.31.255.255',
    '192.168.1.1',
    '169.254.169.254',
    '100.64.0.1',
    '224.0.0.1',
    '255.255.255.255',
    '0x7f000001',
    '2130706433',
    'localhost',
    'a.localhost',
    '[::1]',
    '[::]',
    '[fe80::1]',
    '[fd00::1]',
    '[::ffff:127.0.0.1]',
    '[::ffff:a00:1]',
    '[64:ff9b::10.0.0.1]',
    '[64:ff9b:1::1]',
    '[::127.0.0.1]',
    '[::ffff:0:127.0.0.1]',
    '[2002:7f00:1::]',
    '[2001:0:7f00:1::]',
    '[100::1]',
    '[fec0::1]',
    '127.0.0.1.',
    '0177.1',
    '%31%32%37.1',
    '①②⑦.1'
  ])('%s is inside', async (host) => {
    expect(await privateAddress(new URL(`http://${host}:81/x`), false)).toBeDefined()
  })

  it.each(['1.1.1.1', '172.32.0.1', '11.0.0.1', '[2606:4700::1]', '[::ffff:1.1.1.1]', 'example.org'])(
    '%s is outside, as far as can be told without looking it up',
    async (host) => {
      expect(await privateAddress(new URL(`http://${host}/x`), false)).toBeUndefined()
    }
  )

  it('a network card behind an address changes nothing', () => {
    expect(isPrivateAddress('fe80::1%eth0')).toBe(true)
    expect(isPrivateAddress('2606:4700::1%eth0')).toBe(false)
  })

  it('a name that is not known has none', async () => {
    expect(await privateAddress(new URL('http://no-such-host.invalid/'))).toBeUndefined()
  })
})
