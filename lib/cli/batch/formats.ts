/** Results in other forms, made of the rows when all are there. */
import { rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { BatchTask } from '../../api/many/batch-tasks'
import { objectsOf } from '../../api/many/rows'
import { makeFolder, writeOutput } from '../../base/output-file'
import { type Write, writeText } from '../../base/text-output'
import { Classes } from '../../output/labels/classes'
import { CocoWriter } from '../../output/labels/coco'
import { reviveResults } from '../../output/masks/mask-forms'
import { labelFile, yoloLines } from '../../output/labels/yolo'
import type { Format } from './flags'
import type { Journal } from './journal'
import type { Row } from './rows'

interface What {
  task: BatchTask
  labels: string[] | undefined
}

export async function writeFormat(format: Format, out: string, journal: Journal, what: What): Promise<void> {
  if (format === 'csv') await writeText(out, '--out', async (write) => await writeCsv(journal, write))
  if (format === 'coco') await writeText(out, '--out', async (write) => await writeCoco(journal, what, write))
  if (format === 'yolo') await writeYolo(out, journal, what)
}

const cell = (value: unknown): string => {
  const text = value === undefined ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value)
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
const line = (...values: unknown[]): string => `${values.map(cell).join(',')}\r\n`

/** A line a text, or a line an object (RFC 4180); a picture without objects or with an error has one line. */
async function writeCsv(journal: Journal, write: Write): Promise<void> {
  let hasObjects = false
  let hasGiven = false
  for await (const { row } of journal.rows()) {
    hasObjects ||= objectsOf(row) !== undefined
    hasGiven ||= row.given !== undefined
    if (hasObjects && hasGiven) break
  }
  const start = (row: Pick<Row, 'image' | 'given'>): unknown[] => (hasGiven ? [row.image, row.given] : [row.image])
  const names = hasObjects ? ['label', 'class_id', 'score', 'x', 'y', 'width', 'height'] : ['text']
  await write(line('image', ...(hasGiven ? ['given'] : []), ...names, 'error'))
  for await (const { row } of journal.rows()) {
    const error = row.error && `${row.error.code}: ${row.error.message}`
    const objects = objectsOf(row) ?? []
    if (!hasObjects) await write(line(...start(row), row.text, error))
    else if (objects.length === 0) await write(line(...start(row), ...names.map(() => undefined), error))
    for (const { label, classId, score, box } of objects)
      await write(line(...start(row), label, classId, score, box.x, box.y, box.width, box.height, undefined))
  }
}

/** Pictures that failed are left out. */
async function writeCoco(journal: Journal, { labels }: What, write: Write): Promise<void> {
  const options = labels ? { labels } : {}
  const list = async (parts: (row: Row, text: string) => unknown[]): Promise<void> => {
    let between = ''
    for await (const { row, text } of journal.rows())
      if (!row.error)
        for (const part of parts(row, text)) {
          await write(`${between}\n${JSON.stringify(part)}`)
          between = ','
        }
  }
  const sizes = new CocoWriter(options, true)
  const found = new CocoWriter(options, true)
  const picture = ({ image, width, height }: Row, objects: unknown): object => ({
    fileName: image,
    width,
    height,
    objects
  })
  await write('{"images":[')
  await list((row) => [sizes.add(row.image, picture(row, [])).image])
  await write('],\n"annotations":[')
  await list((row, text) => {
    const objects = objectsOf(JSON.parse(text, reviveResults) as Row)
    return found.add(row.image, picture(row, objects)).annotations
  })
  await write(`],\n"categories":${JSON.stringify(found.categories)}}\n`)
}

/** labels/ holds a file a picture, in folders as the pictures'; data.yaml the names of classes. */
async function writeYolo(out: string, journal: Journal, { task, labels }: What): Promise<void> {
  const folder = join(out, 'labels')
  await rm(folder, { recursive: true, force: true })
  const classes = new Classes(labels, true)
  const taken = new Set<string>()
  const made = new Set<string>()
  for await (const { row, text } of journal.rows()) {
    if (row.error) continue
    const { width, height } = row
    const objects = objectsOf(JSON.parse(text, reviveResults) as Row) ?? []
    const lines = yoloLines(objects, classes, {
      task: task === 'segment' ? 'segment' : 'detect',
      scores: true,
      width,
      height
    })
    const path = join(folder, labelFile(row.image, taken))
    if (!made.has(dirname(path))) await makeFolder(dirname(path), '--out')
    made.add(dirname(path))
    await writeOutput(path, lines, { option: '--out' })
  }
  const names = classes.names.map((name, i) => `  ${i}: ${JSON.stringify(name)}\n`).join('')
  await writeOutput(join(out, 'data.yaml'), `names:\n${names}`, { option: '--out' })
}
