/** What is wrong with a command is said before its model is looked for, let alone loaded. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { command } from '../support/command'
import { removeTempDirs, tempDir } from '../support/convert-helpers'

afterAll(removeTempDirs)

const picture = join(__dirname, '..', '..', 'demo', 'shapes.png')

describe('before the model', () => {
  let folder: string
  let files: Record<string, string>
  beforeAll(() => {
    folder = tempDir()
    const at = (name: string, text: string): string => {
      writeFileSync(join(folder, name), text)
      return join(folder, name)
    }
    files = {
      DATA: at('data.jsonl', `${JSON.stringify({ image: picture, prefix: 'ocr', suffix: '359' })}\n`),
      SCHEMA: at('schema.json', '{"type":"fish"}'),
      OUT: join(folder, 'out'),
      PICTURE: picture
    }
  })

  const sampling = [
    ['--temperature -1', '--temperature'],
    ['--top-k -1', '--top-k'],
    ['--top-p 2', '--top-p'],
    ['--min-p 2', '--min-p'],
    ['--max-tokens 0', '--max-tokens'],
    ['--repeat-penalty 0', '--repeat-penalty'],
    ['--beams 0', '--beams'],
    ['--best-of 0', '--best-of'],
    ['--seed -1', '--seed'],
    ['--log-probs 9999', '--log-probs'],
    ['--threads 0', '--threads'],
    ['--context-size 0', '--context-size']
  ].map(([flags, names]) => [`caption PICTURE ${flags}`, names!] as const)

  it.each<readonly [string, string]>([
    ...sampling,
    ['caption PICTURE --lang english', '--lang'],
    ['answer PICTURE -q x --lang english', '--lang'],
    ['answer PICTURE -q x -c ', '--choice'],
    ['detect PICTURE -l x --min-score 60', '--min-score'],
    ['detect PICTURE -l x --nms 3', '--nms'],
    ['detect PICTURE -l x --max-objects 0', '--max-objects'],
    ['segment PICTURE -l x --tiles 4', '--tiles'],
    ['ocr PICTURE --tiles 4', '--tiles'],
    ['run -i PICTURE -p x --constrain fish', '--constrain'],
    ['run -i PICTURE -p x --json-schema SCHEMA', 'fish'],
    ['run -i PICTURE -p x --top-p 2', '--top-p'],
    ['caption PICTURE --beams 2 --temperature 1', '--temperature 0 with --beams 2'],
    ['run -i PICTURE -p x --beams 2 --constrain detect', '--beams'],
    ['answer PICTURE -q x -c a -c b --beams 2', '--beams'],
    ['detect PICTURE -l x --beams 2', '--no-constrain'],
    ['video PICTURE --beams 2 --temperature 1', '--temperature'],
    ['video PICTURE --detect x --beams 2', '--beams'],
    ['watch PICTURE --best-of 2', '--temperature > 0 with --best-of 2'],
    ['caption PICTURE --best-of 2 --beams 2', '--beams 1 with --best-of 2, which samples,'],
    ['ocr PICTURE --best-of 2 --temperature 1 --seed 9007199254740991', '--seed'],
    ['batch PICTURE --task segment -l x --out OUT --beams 2', '--beams'],
    ['batch PICTURE --task caption --out OUT --top-p 2', '--top-p'],
    ['batch PICTURE --task caption --out OUT --concurrency 0', '--concurrency'],
    ['batch PICTURE --task detect -l x --out OUT --min-score 60', '--min-score'],
    ['video PICTURE --frames 0', '--frames'],
    ['video PICTURE --top-p 2', '--top-p'],
    ['video PICTURE --detect x --min-score 60', '--min-score'],
    ['watch PICTURE --every 100000', '--every'],
    ['watch PICTURE --top-p 2', '--top-p'],
    ['fit --data DATA --out OUT --rank 0', '--rank'],
    ['fit --data DATA --out OUT --learning-rate 0', '--learning-rate'],
    ['fit --data DATA --out OUT --threads 0', '--threads'],
    ['serve --port 99999', '--port'],
    ['serve --host ', '--host'],
    ['serve --allowed-host ', '--allowed-host'],
    ['serve --threads 0', '--threads'],
    ['serve --max-sequences 0', '--max-sequences'],
    ['serve --context-size 99999999999', '--context-size'],
    ['serve --deadline 0', '0.001 to 2147483.647 seconds for --deadline'],
    ['serve --idle-unload 0', 'seconds for --idle-unload'],
    ['serve --drain 3000000', 'seconds for --drain'],
    ['serve --max-body 0', 'megabytes from 1/1024 to 1024 for --max-body'],
    ['serve --max-queue 0', '--max-queue'],
    ['serve --max-images 0', '--max-images'],
    ['serve --cors x', '--cors'],
    ['serve --host -1', '--host'],
    ['worker --stalled-after 0', 'seconds for --stalled-after'],
    ['worker --rate 0', '--rate'],
    ['worker --concurrency 0', '--concurrency'],
    ['worker --queue a:b', '--queue'],
    ['watch PICTURE --detect a<b', '--detect'],
    ['detect PICTURE -l a<b', '--label'],
    ['evaluate --data DATA --metric vqa --limit 0', '--limit']
  ])('%s', async (line, word) => {
    const args = line.split(' ').map((arg) => files[arg] ?? arg)
    const { code, out, err } = await command(...args, '--model', join(folder, 'missing.gguf'))
    expect(err).toContain(word)
    expect(err).toMatch(/^ERR_INVALID_OPTION: .*\n$/)
    expect({ code, out }).toEqual({ code: 2, out: '' })
  })
})
