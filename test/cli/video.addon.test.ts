/** `paligemma video`: rows that survive any end, tracks, films, parts that overlap. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { demoImage, loadModel, recommendedMinScore, videoFrames, type PaliGemma } from '../../lib/index'
import { hasFfmpeg } from '../support/clips'
import { command } from '../support/command'

const rowsOf = (file: string): any[] =>
  readFileSync(file, 'utf8')
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))

/** As the command writes numbers. */
const written = (_: string, value: unknown): unknown =>
  typeof value === 'number' ? Number(value.toPrecision(6)) : value

describe.skipIf(!hasFfmpeg)('paligemma video', () => {
  const folder = mkdtempSync(join(tmpdir(), 'paligemma-film-'))
  const file = (name: string): string => join(folder, name)
  const clip = file('clip.mp4')
  const detecting = ['video', clip, '--model', 'demo', '--detect', 'purple ring', '--every', '0.5', '--tracks']

  beforeAll(() => {
    // the demo picture, slowly turning brighter: 4 s
    const input = ['-loop', '1', '-framerate', '4', '-t', '4', '-i', demoImage]
    const filters = ['-vf', "eq=brightness='0.01*t':eval=frame,format=yuv444p"]
    execFileSync('ffmpeg', ['-loglevel', 'error', '-y', ...input, ...filters, '-c:v', 'libx264', '-crf', '10', clip])
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it('follows things, and goes on after a kill without a frame lost or twice', async () => {
    const whole = await command(...detecting, '--out', file('whole.jsonl'))
    expect(whole.code, whole.err).toBe(0)
    const want = rowsOf(file('whole.jsonl'))
    expect(want.map(({ time }) => time)).toEqual([0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5])
    expect(want[1].image).toBe(`${clip}#t=0.5`)
    expect(want.slice(1).map(({ tracks }) => tracks.tracked.map(({ id }: { id: number }) => id))).toEqual(
      new Array(7).fill([1])
    )
    const main = join(__dirname, '../../dist/cli/main.js')
    const child = spawn(process.execPath, [main, ...detecting, '--out', file('killed.jsonl')], { stdio: 'ignore' })
    const ended = once(child, 'exit')
    while (!existsSync(file('killed.jsonl')) || rowsOf(file('killed.jsonl')).length < 2) {
      await new Promise((resolve) => setTimeout(resolve, 5))
      if (child.exitCode !== null) break
    }
    child.kill('SIGKILL')
    await ended
    truncateSync(file('killed.jsonl'), readFileSync(file('killed.jsonl')).length - 3) // a torn end
    const again = await command(...detecting, '--out', file('killed.jsonl'))
    expect(again.code, again.err).toBe(0)
    expect(rowsOf(file('killed.jsonl'))).toEqual(want)
    const other = await command(...detecting.with(5, 'black heart'), '--out', file('killed.jsonl'))
    expect(other.code).toBe(2)
    expect(other.err).toMatch(/begun with other options: --detect was "purple ring"/)
  })

  it('finds in a clip what it finds in the same pictures, given singly', async () => {
    const film = file('exact.mp4')
    const input = ['-loop', '1', '-framerate', '4', '-t', '1', '-i', demoImage, '-vf', "hue=h='40*n'"]
    const exact = ['-c:v', 'libx264rgb', '-crf', '0', '-pix_fmt', 'rgb24']
    execFileSync('ffmpeg', ['-loglevel', 'error', '-y', ...input, ...exact, film])
    execFileSync('ffmpeg', ['-loglevel', 'error', '-y', '-i', film, file('exact-%d.png')])
    const labels = ['red circle', 'purple ring', 'blue square']
    const out = ['--out', file('exact.jsonl')]
    const { code, err } = await command(
      ...['video', film, '--model', 'demo', '--every', '0.25'],
      ...out,
      '--detect',
      labels.join('; ')
    )
    expect(code, err).toBe(0)
    const rows = rowsOf(file('exact.jsonl'))
    expect(rows).toHaveLength(4)
    const model = await loadModel({ model: 'demo', threads: 2 })
    try {
      const minScore = recommendedMinScore(labels)
      for (const [i, { detections }] of rows.entries()) {
        const found = await model.detect(file(`exact-${i + 1}.png`), labels, { minScore })
        expect(detections).toEqual(JSON.parse(JSON.stringify(found, written)))
        const [start, end] = [i / 4, (i + 1) / 4]
        const { text } = await model.describeVideo(film, { frames: 1, start, end })
        expect(text).toBe(await model.caption(file(`exact-${i + 1}.png`)))
      }
      expect(rows[0].detections.length).toBeGreaterThanOrEqual(2)
      expect(rows[1].detections).not.toEqual(rows[0].detections)
    } finally {
      await model.dispose()
    }
  })

  it('says that nothing is there to be looked at', async () => {
    for (const more of [['--detect', 'star', '--annotate', file('none.mp4')], ['--segment-seconds', '1'], []]) {
      const { code, err } = await command('video', clip, '--model', 'demo', '--start', '10', ...more)
      expect([code, err]).toEqual([1, expect.stringContaining('has no frames from 10 s on')])
    }
    expect(existsSync(file('none.mp4'))).toBe(false)
  })

  it('writes a film with what was found, from rows that are there too', async () => {
    for (const name of ['seen.mp4', 'seen.gif']) {
      const { code, err } = await command(...detecting, '--out', file('whole.jsonl'), '--annotate', file(name))
      expect(code, err).toBe(0)
      expect(err).toMatch(/^8 frames, [\d.]+ x real time/)
    }
    const pictures: Buffer[] = []
    for await (const { image } of videoFrames(file('seen.mp4'), { fps: 2 })) pictures.push(image.data)
    expect(pictures).toHaveLength(8)
    const plain: Buffer[] = []
    for await (const { image } of videoFrames(clip, { times: [1] })) plain.push(image.data)
    const different = pictures[2]!.filter((value, i) => Math.abs(value - plain[0]![i]!) > 60).length
    expect(different).toBeGreaterThan(500) // a box and a label
    expect(readdirSync(folder).filter((name) => /part|tmp/.test(name))).toEqual([])
  })

  it('refuses what makes no film, before anything is loaded', async () => {
    for (const [args, words] of [
      [['--annotate', file('film.txt')], /Expected a file with .mp4/],
      [['--annotate', join(folder, 'none', 'film.mp4')], /ERR_/],
      [['--annotate', clip], /ERR_/],
      [['--overwrite'], /--overwrite needs --out/],
      [['--frames', '3'], /takes no --frames/]
    ] as const) {
      const { code, err } = await command(...detecting, ...args)
      expect(code, args.join(' ')).not.toBe(0)
      expect(err).toMatch(words)
    }
    const alone = await command('video', clip, '--model', 'demo', '--annotate', file('film.mp4'))
    expect(alone.err).toMatch(/--annotate needs --detect/)
    writeFileSync(file('mine.jsonl'), 'mine\n')
    const mine = await command(...detecting, '--out', file('mine.jsonl'))
    expect(mine.err).toMatch(/was not begun by this command/)
    expect(readFileSync(file('mine.jsonl'), 'utf8')).toBe('mine\n')
  })

  it('describes parts, and goes on with the next', async () => {
    const asking = [
      'video',
      clip,
      '--model',
      'demo',
      '--frames',
      '2',
      '--segment-seconds',
      '1',
      '--max-tokens',
      '5',
      '--caption'
    ]
    expect((await command(...asking, '--out', file('texts.jsonl'))).code).toBe(0)
    const want = rowsOf(file('texts.jsonl'))
    expect(want.map(({ start }) => start)).toEqual([0, 1, 2, 3])
    const lines = readFileSync(file('texts.jsonl'), 'utf8').split('\n')
    writeFileSync(file('texts.jsonl'), `${lines.slice(0, 2).join('\n')}\n{"ima`)
    expect((await command(...asking, '--out', file('texts.jsonl'))).code).toBe(0)
    expect(rowsOf(file('texts.jsonl'))).toEqual(want)
    expect((await command(...asking, '--out', file('texts.jsonl'))).code).toBe(0)
    expect(rowsOf(file('texts.jsonl'))).toEqual(want)
  })

  it('shows what it watches on a page of this machine', async () => {
    const motion = file('page.mjpeg')
    execFileSync('ffmpeg', ['-loglevel', 'error', '-i', clip, '-c:v', 'mjpeg', '-f', 'mjpeg', '-y', motion])
    const main = join(__dirname, '../../dist/cli/main.js')
    const looking = ['watch', '-', '--model', 'demo', '--detect', 'purple ring', '--tracks', '--page', '--port', '0']
    const child = spawn(process.execPath, [main, ...looking])
    const ended = once(child, 'exit')
    let writing: NodeJS.Timeout | undefined
    try {
      let said = ''
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        said += text
      })
      while (!/The page is \S+/.test(said) && child.exitCode === null) await new Promise((r) => setTimeout(r, 20))
      const url = /The page is (\S+)/.exec(said)![1]!
      expect(url).toMatch(/^http:\/\/127\.0\.0\.1:/)
      const { body } = await fetch(`${url}live`)
      child.stdin.on('error', () => {}) // it leaves before
      writing = setInterval(() => child.stdin.write(readFileSync(motion)), 500)
      let text = ''
      for await (const chunk of body!.pipeThrough(new TextDecoderStream() as never) as any as AsyncIterable<string>) {
        text += chunk
        if (text.endsWith('\n\n')) break
      }
      const seen = JSON.parse(text.slice('data: '.length).split('\n')[0]!)
      expect(seen.source).toBe('-')
      expect(seen.picture).toMatch(/^data:image\/jpeg;base64,/)
      expect(seen.figures).toMatch(/looks a second/)
    } finally {
      clearInterval(writing)
      child.kill('SIGINT')
    }
    expect((await ended)[0]).toBe(130)
    const needs = await command('watch', '-', '--model', 'demo', '--port', '0')
    expect(needs.err).toMatch(/--port needs --page/)
  })

  it('watches what comes on standard input, as a camera’s program writes it', async () => {
    const main = join(__dirname, '../../dist/cli/main.js')
    const looking = ['watch', '-', '--model', 'demo', '--detect', 'purple ring', '--count', '1', '--jsonl']
    const child = spawn(process.execPath, [main, ...looking])
    child.stdin.on('error', () => {}) // it leaves early
    execFileSync('ffmpeg', ['-loglevel', 'error', '-i', clip, '-c:v', 'mjpeg', '-f', 'mjpeg', file('clip.mjpeg')])
    child.stdin.end(readFileSync(file('clip.mjpeg')))
    let out = ''
    child.stdout.on('data', (data) => {
      out += data
    })
    expect(await once(child, 'exit')).toEqual([0, null])
    expect(JSON.parse(out).result[0].label).toBe('purple ring')
  })

  it.skipIf(process.platform === 'win32')('tells a command of each result, and ends while that runs', async () => {
    const main = join(__dirname, '../../dist/cli/main.js')
    const looking = ['watch', clip, '--model', 'demo', '--caption', '--max-tokens', '2', '--jsonl']
    const told = await command(...looking, '--count', '2', '--exec', `cat >> '${file('told')}'; exit 3`)
    expect(told.code, told.err).toBe(0)
    expect(told.err.match(/--exec ended with 3/g)).toHaveLength(2)
    expect(rowsOf(file('told')).map(({ result }) => typeof result)).toEqual(['string', 'string'])
    const child = spawn(process.execPath, [main, ...looking, '--exec', `touch '${file('began')}'; exec sleep 60`])
    let err = ''
    child.stderr.on('data', (data) => {
      err += data
    })
    const ended = once(child, 'exit')
    await expect.poll(() => existsSync(file('began')), { timeout: 20_000 }).toBe(true)
    child.kill('SIGINT')
    expect([await ended, err]).toEqual([[130, null], expect.not.stringContaining('ABORT_ERR')])
  })

  it('does not wait for a slow camera’s hundredth picture', async () => {
    const main = join(__dirname, '../../dist/cli/main.js')
    const looking = ['watch', '-', '--model', 'demo', '--detect', 'purple ring', '--count', '2', '--jsonl']
    const child = spawn(process.execPath, [main, ...looking])
    child.stdin.on('error', () => {}) // it leaves early
    const jpeg = await sharp(demoImage).jpeg().toBuffer()
    const writing = setInterval(() => child.stdin.write(jpeg), 300)
    try {
      expect(await once(child, 'exit')).toEqual([0, null]) // without a picture for ten seconds it gives up
    } finally {
      clearInterval(writing)
    }
  })

  describe('overlapping parts', () => {
    let model: PaliGemma
    beforeAll(async () => {
      model = await loadModel({ model: 'demo', threads: 2 })
    })
    afterAll(async () => await model.dispose())

    it('say what the same pictures say, each seen once', async () => {
      const call = { frames: 4, segmentSeconds: 2, strideSeconds: 1, maxTokens: 8 }
      const { segments } = await model.describeVideo(clip, call)
      expect(segments.map(({ start }) => start)).toEqual([0, 1, 2])
      expect(segments[1]!.times.slice(0, 2)).toEqual(segments[0]!.times.slice(2))
      // the shortest: any of them may have been kept waiting by other processes
      expect(Math.min(...segments.map(({ timings }) => timings.visionMs))).toBeLessThan(1)
      for (const { times, text } of segments) {
        const images = []
        for await (const { image } of videoFrames(clip, { times })) images.push(image)
        expect(text).toBe((await model.generate({ images, prompt: 'caption en', maxTokens: 8 })).text)
      }
      for (const strideSeconds of [3, 0])
        await expect(model.describeVideo(clip, { ...call, strideSeconds })).rejects.toMatchObject({
          code: 'ERR_INVALID_OPTION'
        })
    })

    it('and a second question about what watch saw costs no second look', async () => {
      const rounds = model.watch([demoImage], { task: 'detect', labels: 'purple ring' })
      for await (const { image } of rounds) {
        const looks: number[] = []
        for (const prompt of ['caption en', 'ocr', 'detect black heart'])
          looks.push((await model.generate({ image, prompt, maxTokens: 2 })).timings.visionMs)
        expect(Math.min(...looks)).toBeLessThan(1)
      }
    })
  })
})
