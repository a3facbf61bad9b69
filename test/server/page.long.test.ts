/**
 * The page in a browser: Chromium without a window, axe for accessibility. PALIGEMMA_SCREENSHOTS names a folder for
 * pictures.
 */
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { type Browser, type BrowserContextOptions, chromium, type Page, type Request } from 'playwright-core'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createServer, type PaliGemmaServer } from '../../lib/server'
import { LivePage } from '../../lib/server/live-page'
import { demoImage } from '../../lib'

const browserFile = [
  process.env['CHROMIUM'],
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome'
]
  .filter((file) => file !== undefined)
  .find((file) => existsSync(file))
if (!browserFile && process.env['PALIGEMMA_ALL_TESTS'])
  throw new Error('The page is not tested without Chromium: apt-get install chromium')

// of the browser, where the functions given to `evaluate` run
declare const document: any, navigator: any, innerWidth: number, DataTransfer: any, DragEvent: any, ClipboardEvent: any

const axe = readFileSync(createRequire(__filename).resolve('axe-core/axe.min.js'), 'utf8')

describe.skipIf(!browserFile)('the page', () => {
  let server: PaliGemmaServer
  let locked: PaliGemmaServer
  let url = ''
  let lockedUrl = ''
  let browser: Browser
  let page: Page
  let requests: Request[] = []
  let problems: string[] = []

  beforeAll(async () => {
    server = createServer({ models: { demo: 'demo', other: { base: 'demo', adapters: [] } }, logger: false })
    locked = createServer({ models: { demo: 'demo' }, apiKeys: ['secret'], logger: false, lazy: true })
    url = (await server.listen({ port: 0 })).url
    lockedUrl = (await locked.listen({ port: 0 })).url
    await server.ready()
    browser = await chromium.launch({
      executablePath: browserFile!,
      args: ['--no-sandbox', '--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream']
    })
  })

  afterAll(async () => {
    await browser?.close()
    await server?.close()
    await locked?.close()
  })

  async function open(options: BrowserContextOptions = {}, address = url): Promise<Page> {
    const context = await browser.newContext({
      viewport: { width: 1280, height: 860 },
      permissions: ['clipboard-read', 'clipboard-write', 'camera'],
      ...options
    })
    page = await context.newPage()
    page.on('request', (request) => requests.push(request))
    page.on('pageerror', (error) => problems.push(String(error)))
    page.on('console', (message) => {
      if (message.type() === 'error' && !message.text().includes('401')) problems.push(message.text())
    })
    await page.goto(`${address}/`)
    return page
  }

  const addExample = async (): Promise<void> => {
    await page.setInputFiles('#files', demoImage)
    await page.waitForSelector('.card')
  }

  const run = async (): Promise<void> => {
    await page.click('#run')
    await page.waitForSelector('#stop', { state: 'hidden' })
  }

  /** Serious and critical findings; the text over canvases is no text to axe. */
  const check = async (): Promise<void> => {
    await page.evaluate(axe)
    const found = (await page.evaluate('axe.run({ resultTypes: ["violations"] })')) as {
      violations: { id: string; nodes: { html: string; failureSummary: string }[] }[]
    }
    expect(found.violations.map(({ id, nodes }) => [id, nodes[0]!.html, nodes[0]!.failureSummary])).toEqual([])
  }

  const shoot = async (name: string): Promise<void> => {
    const folder = process.env['PALIGEMMA_SCREENSHOTS']
    if (folder) await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true })
  }

  beforeEach(() => {
    requests = []
    problems = []
  })

  afterEach(async () => {
    await page?.context().close()
    // nothing leaves the machine, and the policy of the page holds
    const foreign = requests
      .map((request) => request.url())
      .filter((to) => !/^(?:blob:|data:|http:\/\/127\.0\.0\.1:)/.test(to))
    expect(foreign).toEqual([])
    expect(problems).toEqual([])
  })

  it('streams a caption, shows probabilities on hover and times', async () => {
    await open()
    expect(await page.locator('#model option').allTextContents()).toEqual(['demo', 'other'])
    await addExample()
    await run()
    expect(await page.textContent('.card .text')).toBe(
      'a red circle, a purple ring, a black heart and a blue square on a dotted background with the number 359'
    )
    expect(await page.textContent('.times')).toMatch(/^first token \d.* tokens\/s · 68 \+ 26 tokens$/)
    await page.hover('.token >> nth=1')
    expect(await page.textContent('#tip')).toMatch(/^ red {2}\d+\.\d %\n +\d+\.\d % /)
    await page.click('summary:has-text("tokens")')
    expect(await page.locator('.card tbody tr').count()).toBeGreaterThan(20)
    await check()
    await shoot('caption')
  })

  it('draws boxes and masks at the picture’s resolution, with a threshold', async () => {
    await open()
    await addExample()
    await page.click('role=tab[name="Find"]')
    await page.fill('[name=labels]', 'circle; heart; ring')
    await run()
    expect(await page.locator('.objects li').count()).toBe(3)
    const size = await page.$eval('.card canvas', (canvas: any) => [canvas.width, canvas.height])
    expect(size).toEqual([448, 448])
    const drawn = async (): Promise<number> =>
      await page.$eval('.card canvas', (canvas: any) => {
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
        let count = 0
        for (let i = 3; i < data.length; i += 4) if (data[i] > 0) count++
        return count
      })
    expect(await drawn()).toBeGreaterThan(500)
    await shoot('find')
    await page.$eval('#threshold', (input: any) => {
      input.value = '0.95'
      input.dispatchEvent(new Event('input'))
    })
    expect(await page.textContent('.objects')).toContain('below the threshold')
    await page.click('role=tab[name="Cut out"]')
    await page.fill('[name=labels]', 'purple ring')
    await run()
    expect(await drawn()).toBeGreaterThan(5000) // a box and the ring in it
    await check()
    await shoot('cut-out')
  })

  it('answers, reads, and takes free prompts, whose boxes it draws', async () => {
    await open()
    await addExample()
    await page.click('role=tab[name="Ask"]')
    await page.fill('[name=question]', 'what is left of the ring?')
    await run()
    expect(await page.textContent('.card .text')).toBe('red circle')
    await page.click('role=tab[name="Read"]')
    await run()
    expect(await page.textContent('.card .text')).toBe('359')
    await page.click('role=tab[name="Prompt"]')
    await page.fill('[name=prompt]', 'detect black heart')
    await page.keyboard.press('Control+Enter')
    await page.waitForSelector('.objects li:has-text("black heart")')
    expect(await page.locator('#history li').count()).toBe(3)
    await page.click('#history li:last-child button')
    await page.waitForSelector('.card .text:has-text("red circle")')
    expect(await page.inputValue('[name=question]')).toBe('what is left of the ring?')
  })

  it('shows the masks of a free prompt', async () => {
    await open()
    await addExample()
    await page.click('role=tab[name="Prompt"]')
    await page.fill('[name=prompt]', 'segment purple ring')
    await run()
    expect(await page.locator('.objects li').allTextContents()).toEqual(['purple ring1.00'])
    const drawn = await page.$eval('.card canvas', (canvas: any) => {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height)
      return data.filter((value: number, i: number) => i % 4 === 3 && value > 0).length
    })
    expect(drawn).toBeGreaterThan(5000)
  })

  it('draws objects as they come', async () => {
    await open()
    await addExample()
    await page.click('role=tab[name="Find"]')
    await page.fill('[name=labels]', 'circle; heart; ring')
    await page.evaluate(() => {
      const { MutationObserver, counts = [] } = globalThis as any
      Object.assign(globalThis, { counts })
      const look = (): void => void counts.push(document.querySelectorAll('.objects li').length)
      new MutationObserver(look).observe(document.querySelector('.card'), { childList: true, subtree: true })
    })
    await run()
    const counts = (await page.evaluate('counts')) as number[]
    expect(counts).toEqual(expect.arrayContaining([1, 2, 3]))
  })

  it('takes several pictures as a grid, dropped and pasted ones too', async () => {
    await open()
    await page.setInputFiles('#files', [demoImage, demoImage])
    const give = async (name: 'drop' | 'paste'): Promise<void> => {
      await page.evaluate(
        async ([kind, example]) => {
          const blob = await (await fetch(example!)).blob()
          const transfer = new DataTransfer()
          transfer.items.add(new File([blob], `${kind}.png`, { type: 'image/png' }))
          const event =
            kind === 'drop'
              ? new DragEvent('drop', { dataTransfer: transfer })
              : new ClipboardEvent('paste', { clipboardData: transfer })
          document.dispatchEvent(event)
        },
        [name, 'page/example.png']
      )
    }
    await give('drop')
    await give('paste')
    expect(await page.locator('.card').count()).toBe(4)
    await page.click('#run')
    await page.waitForFunction(() => document.querySelectorAll('.card .times').length === 4)
    expect(await page.textContent('#status')).toBe('4 pictures done')
    await check()
    await shoot('grid')
  })

  it('copies code, JSON and COCO', async () => {
    await open()
    await addExample()
    await page.click('role=tab[name="Cut out"]')
    await page.fill('[name=labels]', 'purple ring')
    await run()
    const copied = async (kind: string): Promise<string> => {
      await page.selectOption('#copy-kind', kind)
      await page.click('#copy')
      await page.waitForSelector('#status:has-text("Copied")')
      return await page.evaluate(() => navigator.clipboard.readText())
    }
    expect(await copied('js')).toContain(`await model.segment('shapes.png', ["purple ring"])`)
    expect(await copied('curl')).toContain(`-F 'labels=purple ring'`)
    expect(await copied('curl')).toContain(`${url}/v1/segment`)
    expect(await copied('openai')).toContain('"constrain": "segment"')
    expect(JSON.parse(await copied('json'))).toMatchObject([
      { image: 'shapes.png', objects: [{ label: 'purple ring' }] }
    ])
    const coco = JSON.parse(await copied('coco'))
    expect(coco).toMatchObject({
      images: [{ id: 1, file_name: 'shapes.png', width: 448, height: 448 }],
      annotations: [{ category_id: 1, segmentation: { size: [448, 448] } }],
      categories: [{ id: 1, name: 'purple ring' }]
    })
    // where the ring is, to some pixels of the model's choice
    for (const [i, side] of [124, 208, 138, 149].entries())
      expect(Math.abs(coco.annotations[0].bbox[i] - side), `side ${i}`).toBeLessThan(10)
    expect(coco.annotations[0].area).toBeGreaterThan(5000)
  })

  it('looks at the newest frame of a camera, one at a time', async () => {
    await open()
    await page.click('#live')
    await page.waitForFunction(() => document.querySelector('#camera-text').textContent !== '', undefined, {
      timeout: 20_000
    })
    await page.waitForSelector('#camera-rate:has-text("pictures/s")')
    await page.check('#also-read')
    await page.waitForSelector('#camera-text .hint:has-text("Read")')
    expect(await page.locator('#camera-text p').count()).toBe(2)
    await page.uncheck('#also-read')
    await page.waitForTimeout(500)
    const asked = requests.filter((request) => request.url().endsWith('/v1/chat/completions'))
    const open_ = await Promise.all(asked.slice(0, -1).map(async (request) => (await request.response()) !== null))
    expect(open_.every(Boolean)).toBe(true)
    await page.click('#camera-keep')
    await page.waitForSelector('.card')
    await check()
    await shoot('camera')
    await page.click('#camera-stop')
    expect(await page.isHidden('#camera')).toBe(true)
  })

  it('is used by keyboard alone', async () => {
    await open()
    await page.focus('#tab-caption')
    await page.keyboard.press('ArrowRight')
    expect(await page.getAttribute('#tab-ask', 'aria-selected')).toBe('true')
    expect(await page.evaluate(() => document.activeElement.id)).toBe('tab-ask')
    await page.keyboard.press('End')
    expect(await page.getAttribute('#tab-free', 'aria-selected')).toBe('true')
    await page.keyboard.press('Home')
    await page.focus('#example')
    await page.keyboard.press('Enter')
    await page.waitForSelector('.card')
    await page.keyboard.press('Control+Enter')
    await page.waitForSelector('.times')
    expect(await page.textContent('#status')).toMatch(/^Answer: a red circle/)
  })

  it('asks for a key where the server needs one', async () => {
    await open({}, lockedUrl)
    await page.fill('#key', 'secret')
    await page.keyboard.press('Enter')
    await page.waitForFunction(() => document.querySelectorAll('#model option').length === 1)
    await addExample()
    await run()
    expect(await page.textContent('.card .text')).toContain('purple ring')
  })

  it('tells what the server refuses', async () => {
    await open()
    await page.setInputFiles('#files', { name: 'broken.png', mimeType: 'image/png', buffer: Buffer.from('no picture') })
    problems = []
    await page.click('#run')
    await page.waitForSelector('.error')
    expect(await page.textContent('.error')).toMatch(/image/)
    problems = problems.filter((text) => !text.includes('400'))
  })

  it.each([
    ['phone', { viewport: { width: 390, height: 844 }, hasTouch: true, isMobile: true }],
    ['phone-dark', { viewport: { width: 390, height: 844 }, isMobile: true, colorScheme: 'dark' as const }],
    ['dark', { colorScheme: 'dark' as const }]
  ])('fits and can be read: %s', async (name, options) => {
    await open(options)
    await addExample()
    await page.click('role=tab[name="Find"]')
    await page.fill('[name=labels]', 'purple ring; black heart')
    await run()
    const wider = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)
    expect(wider).toBe(false)
    await check()
    await shoot(name)
    await page.click('#theme')
    await check()
  })

  it('shows what watch sees, with ids, and who came and went', async () => {
    const live = await LivePage.open({ port: 0 })
    try {
      await open({}, live.url)
      expect(await page.textContent('#figures')).toBe('Waiting for the first picture.')
      const box = { x: 20, y: 20, width: 90, height: 80 }
      const ring = { id: 1, label: 'purple ring', score: 0.93, box }
      const show = (objects: object[], more: object): void =>
        live.show({
          ...{ source: '/dev/video0', image: demoImage, time: 0, text: '', figures: '2.0 looks a second' },
          ...{ objects, entered: [], left: [], ...more }
        })
      show([], {})
      await page.waitForFunction(() => !document.querySelector('#picture').hidden)
      show([ring], { entered: [ring] })
      await page.waitForSelector('#found li')
      expect(await page.textContent('#found')).toBe('#1 purple ring 0.93')
      expect(await page.textContent('#events')).toMatch(/#1 purple ring came$/)
      expect(await page.textContent('h1')).toBe('/dev/video0')
      const drawn = await page.evaluate(() => {
        const canvas = document.querySelector('#overlay')
        return canvas.getContext('2d').getImageData(20, 60, 1, 1).data[3]
      })
      expect(drawn).toBe(255)
      await check()
      await shoot('watch')
      show([], { left: [ring] })
      await page.waitForFunction(() => document.querySelectorAll('#events li').length === 2)
      await live.close()
      await page.waitForFunction(() => document.querySelector('#status').textContent === 'The command has ended.')
    } finally {
      await live.close()
    }
  })

  it('has a policy that lets nothing else in', async () => {
    const response = await fetch(`${url}/`)
    expect(response.headers.get('content-security-policy')).toMatch(/^default-src 'none'; script-src 'self';/)
    const again = await fetch(`${url}/page/app.mjs`, {
      headers: { 'if-none-match': (await fetch(`${url}/page/app.mjs`)).headers.get('etag')! }
    })
    expect(again.status).toBe(304)
    expect((await fetch(`${url}/page/..%2Fserver.js`)).status).toBe(404)
  })
})
