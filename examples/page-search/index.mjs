// Finds pages by what they show. Vectors live in SQLite; see README.md.
//   node index.mjs add  --model M.gguf FOLDER_OR_FILE...
//   node index.mjs find --model M.gguf 'what to look for' [--limit 5] [--maps FOLDER]
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, extname, join, resolve } from 'node:path'
import { parseArgs, promisify } from 'node:util'
import {
  drawSimilarityMap,
  loadModel,
  PageIndex,
  poolTokens,
  quantizeVectors,
  rescore,
  similarityMap
} from 'node-paligemma'

const run = promisify(execFile)
const poolFactor = 3 // a third of the vectors, about 98 % of the quality
const candidates = 200 // pages that the bits find for the int8 vectors to put in order
const dotsPerInch = 150 // of a PDF's pages; 448 px are all the model sees
const pictures = new Set(['.png', '.jpg', '.jpeg', '.webp', '.tif', '.tiff', '.gif', '.avif', '.bmp'])

/** Node's own SQLite, or better-sqlite3 where Node has none: what is used here is the same in both. */
async function openSqlite(path) {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major > 22 || (major === 22 && minor >= 13)) return new (await import('node:sqlite')).DatabaseSync(path)
  try {
    return new (await import('better-sqlite3')).default(path)
  } catch {
    throw new Error(
      `Node ${process.versions.node} has no node:sqlite: use Node 22.13 or later, or compile better-sqlite3 12 as ` +
        'README.md says'
    )
  }
}

/** For each page its int8 vectors, to score with, and their signs, an eighth as much, to search. */
async function openDatabase(path) {
  const db = await openSqlite(path)
  db.exec(`
    PRAGMA journal_mode = WAL;
    PRAGMA foreign_keys = ON;
    CREATE TABLE IF NOT EXISTS setting (key TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS page (
      id INTEGER PRIMARY KEY,
      path TEXT NOT NULL,          -- of the picture or PDF
      number INTEGER NOT NULL,     -- of the page in it, from 1
      changed REAL NOT NULL,       -- the file's time of change, ms
      tokens INTEGER NOT NULL,
      bits BLOB NOT NULL,          -- [tokens, dims / 8]
      UNIQUE (path, number)
    );
    CREATE TABLE IF NOT EXISTS vectors (
      page INTEGER PRIMARY KEY REFERENCES page (id) ON DELETE CASCADE,
      data BLOB NOT NULL,          -- int8 [tokens, dims]
      scales BLOB NOT NULL         -- float32 [tokens]
    );`)
  return db
}

/** Vectors of different models or prompts cannot be compared: the first model decides. */
function checkModel(db, model) {
  const wanted = { model: model.info.name, flavour: model.info.retrievalFlavour }
  for (const [key, value] of Object.entries(wanted)) {
    db.prepare('INSERT OR IGNORE INTO setting VALUES (?, ?)').run(key, value)
    const { value: stored } = db.prepare('SELECT value FROM setting WHERE key = ?').get(key)
    if (stored !== value)
      throw new Error(`The database was made with ${key} "${stored}", not "${value}"; use that, or another --database`)
  }
}

/** Pictures and PDFs among the paths, folders with all that is in them. */
async function listFiles(paths) {
  const files = []
  for (const path of paths) {
    if (!(await stat(path)).isDirectory()) {
      files.push(path)
      continue
    }
    for (const entry of await readdir(path, { recursive: true, withFileTypes: true })) {
      const kind = extname(entry.name).toLowerCase()
      if (entry.isFile() && (pictures.has(kind) || kind === '.pdf'))
        files.push(join(entry.parentPath ?? entry.path, entry.name))
    }
  }
  return files.map((file) => resolve(file)).sort()
}

const isPdf = (file) => extname(file).toLowerCase() === '.pdf'

/** A PDF's pages as PNGs, by poppler's pdftoppm; all of them or one. */
async function renderPdf(file, folder, page) {
  const only = page === undefined ? [] : ['-f', String(page), '-l', String(page)]
  try {
    await run('pdftoppm', ['-png', '-r', String(dotsPerInch), ...only, file, join(folder, 'page')])
  } catch (error) {
    if (error.code === 'ENOENT')
      throw new Error('PDFs need pdftoppm: apt install poppler-utils, or brew install poppler')
    throw new Error(`${file} cannot be rendered: ${error.stderr || error.message}`)
  }
  return (await readdir(folder))
    .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }))
    .map((name) => join(folder, name))
}

/** Calls `use` with the pictures of a file's pages, which exist until it is done. */
async function withPages(file, use, page) {
  if (!isPdf(file)) return await use([file])
  const folder = await mkdtemp(join(tmpdir(), 'page-search-'))
  try {
    return await use(await renderPdf(file, folder, page))
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

async function add(db, model, paths) {
  const known = db.prepare('SELECT changed FROM page WHERE path = ? LIMIT 1')
  const forget = db.prepare('DELETE FROM page WHERE path = ?')
  const addPage = db.prepare('INSERT INTO page (path, number, changed, tokens, bits) VALUES (?, ?, ?, ?, ?)')
  const addVectors = db.prepare('INSERT INTO vectors VALUES (?, ?, ?)')
  const bytes = (array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength)
  // all pages of a file or none
  const store = (file, changed, pages) => {
    db.exec('BEGIN')
    try {
      forget.run(file)
      for (const [i, { int8, bits }] of pages.entries()) {
        const { lastInsertRowid } = addPage.run(file, i + 1, changed, int8.tokens, bytes(bits.data))
        addVectors.run(lastInsertRowid, bytes(int8.data), bytes(int8.scales))
      }
      db.exec('COMMIT')
    } catch (error) {
      db.exec('ROLLBACK')
      throw error
    }
  }
  for (const file of await listFiles(paths)) {
    const changed = (await stat(file)).mtimeMs
    if (known.get(file)?.changed === changed) continue
    try {
      const pages = await withPages(file, async (images) => {
        const embedded = []
        for (const image of images) {
          const vectors = await poolTokens(await model.embedImage(image), { factor: poolFactor })
          embedded.push({ int8: quantizeVectors(vectors, 'int8'), bits: quantizeVectors(vectors, 'binary') })
        }
        return embedded
      })
      store(file, changed, pages)
      console.log(`${file}: ${pages.length} page${pages.length === 1 ? '' : 's'}`)
    } catch (error) {
      console.error(`${file}: ${error.message}`)
      process.exitCode = 1
    }
  }
}

async function find(db, model, text, limit, maps) {
  const query = await model.embedText(text)
  const { dims } = query
  const index = new PageIndex({ type: 'binary', dims })
  const ids = [] // by the index's numbers
  for (const { id, tokens, bits } of db.prepare('SELECT id, tokens, bits FROM page').iterate()) {
    index.add({ type: 'binary', data: new Uint8Array(bits), tokens, dims })
    ids.push(id)
  }
  const readVectors = db.prepare('SELECT data, scales FROM vectors WHERE page = ?')
  const hits = await rescore(query, await index.search(query, { limit: candidates }), (page) => {
    const { data, scales } = readVectors.get(ids[page])
    // copies: SQLite's bytes need not lie at multiples of four
    return {
      type: 'int8',
      data: new Int8Array(data),
      scales: new Float32Array(new Uint8Array(scales).buffer),
      tokens: scales.length / 4,
      dims
    }
  })
  const describe = db.prepare('SELECT path, number FROM page WHERE id = ?')
  for (const [rank, { page, score }] of hits.slice(0, limit).entries()) {
    const { path, number } = describe.get(ids[page])
    console.log(`${String(rank + 1).padStart(3)}  ${score.toFixed(2)}  ${path}${isPdf(path) ? ` page ${number}` : ''}`)
    if (maps !== undefined)
      await drawMap(
        model,
        query,
        path,
        number,
        join(maps, `${rank + 1}-${basename(path, extname(path))}-${number}.png`)
      )
  }
}

/** Pooled vectors have no places: the page is embedded once more. */
async function drawMap(model, query, path, number, out) {
  const words = query.texts.flatMap((text, i) => (/^(<bos>|<pad>|\n)$/.test(text) ? [] : [i]))
  const png = await withPages(
    path,
    async ([image]) =>
      await drawSimilarityMap(
        image,
        similarityMap(query, await model.embedImage(image), words.length > 0 ? { tokens: words } : {})
      ),
    number
  )
  await mkdir(join(out, '..'), { recursive: true })
  await writeFile(out, png)
}

const usage = `Usage:
  node index.mjs add  --model M.gguf FOLDER_OR_FILE...
  node index.mjs find --model M.gguf 'what to look for' [--limit 5] [--maps FOLDER]
Both: [--database pages.sqlite]`

async function main() {
  const {
    values,
    positionals: [verb, ...rest]
  } = parseArgs({
    allowPositionals: true,
    options: {
      model: { type: 'string' },
      database: { type: 'string', default: 'pages.sqlite' },
      limit: { type: 'string', default: '5' },
      maps: { type: 'string' }
    }
  })
  if (!['add', 'find'].includes(verb) || values.model === undefined || rest.length === 0) {
    console.error(usage)
    process.exitCode = 2
    return
  }
  const db = await openDatabase(values.database)
  const model = await loadModel(values.model)
  try {
    checkModel(db, model)
    if (verb === 'add') await add(db, model, rest)
    else await find(db, model, rest.join(' '), Number(values.limit), values.maps)
  } finally {
    await model.dispose()
    db.close()
  }
}

main().catch((error) => {
  console.error(error.message)
  process.exitCode = 1
})
