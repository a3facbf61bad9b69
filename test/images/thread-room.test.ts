import { describe, expect, it } from 'vitest'
import { ThreadRoom, threadsPerPicture } from '../../lib/images/thread-room'
import { isStarved } from '../../lib/images/sharp'

const each = threadsPerPicture(1)

/** Work that ends when it is told to; how many are in work, and were at most. */
function works(): { one: () => Promise<void>; end: () => void; now: () => number; most: () => number } {
  const ends: (() => void)[] = []
  let most = 0
  return {
    one: async () => {
      await new Promise<void>((resolve) => {
        ends.push(resolve)
        most = Math.max(most, ends.length)
      })
    },
    end: () => ends.shift()?.(),
    now: () => ends.length,
    most: () => most
  }
}

const turns = async (): Promise<void> => await new Promise((resolve) => setImmediate(resolve))

describe('room for threads', () => {
  it('lets as many work at once as have room, and all in the end', async () => {
    const asked: number[] = []
    const room = new ThreadRoom(async (want) => {
      asked.push(want)
      return 2 * each + 1
    })
    const work = works()
    const all = Promise.all(Array.from({ length: 5 }, async () => await room.run(1, work.one)))
    for (let i = 0; i < 5; i++) {
      await turns()
      expect(work.now()).toBe(Math.min(2, 5 - i))
      work.end()
    }
    await all
    expect(work.most()).toBe(2)
    expect(asked).toEqual([4 * each])
  })

  it('refuses all that wait where there is none, as a lack and not as a fault of the picture', async () => {
    let free = 0
    const room = new ThreadRoom(async () => free)
    const refused = await Promise.allSettled(
      Array.from({ length: 3 }, async () => await room.run(1, async () => 'made'))
    )
    for (const one of refused) {
      expect(one.status).toBe('rejected')
      expect(isStarved((one as PromiseRejectedResult).reason)).toBe(true)
    }
    free = each
    expect(await room.run(1, async () => 'made')).toBe('made')
  })

  it('asks while nothing is in work only, and frees the place of what fails', async () => {
    let asked = 0
    const work = works()
    const room = new ThreadRoom(async () => {
      asked++
      expect(work.now()).toBe(0)
      return each
    })
    const first = room.run(1, work.one)
    await turns()
    const others = [1, 2].map(async () => await room.run(1, async () => await Promise.reject(new Error('broken'))))
    await turns()
    work.end()
    await first
    for (const { status, reason } of (await Promise.allSettled(others)) as PromiseRejectedResult[])
      expect([status, String(reason)]).toEqual(['rejected', 'Error: broken'])
    expect(asked).toBeGreaterThan(1)
  })

  it('lets what waited know when room was lost meanwhile', async () => {
    let free = each
    const room = new ThreadRoom(async () => free)
    const work = works()
    const first = room.run(1, work.one)
    await turns()
    const others = Promise.allSettled([1, 2].map(async () => await room.run(1, work.one)))
    await turns()
    free = 0
    work.end()
    await first
    expect((await others).map(({ status }) => status)).toEqual(['rejected', 'rejected'])
  })

  it('asks for fewer pictures at once where each has many threads, and goes on where nobody can be asked', async () => {
    let want = 0
    const room = new ThreadRoom(async (wanted) => {
      want = wanted
      throw new Error('no engine')
    })
    expect(await room.run(64, async () => 'made')).toBe('made')
    expect(want).toBe(threadsPerPicture(64))
  })
})
