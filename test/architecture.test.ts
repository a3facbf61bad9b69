/** The drawing of the architecture, kept true: which folder may include which. */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { errorCodes, nativeAborted } from '../lib/base/errors'

const root = join(__dirname, '..')

// Everything may include its own folder. Lower layers never see higher ones.
const allowed: Record<string, string[]> = {
  base: [],
  format: ['base'],
  device: ['base'],
  cpu: ['base', 'format', 'device'],
  gpu: ['base', 'format', 'device'],
  retrieval: ['base', 'cpu'],
  text: ['base', 'format'],
  image: ['base', 'format'],
  model: ['base', 'format', 'device', 'image'], // ops through the Device interface, never a kernel
  train: ['base', 'format', 'device', 'model'],
  serve: ['base', 'format', 'device', 'cpu', 'gpu', 'text', 'image', 'model', 'train'], // cpu, gpu: make_device alone
  // cpu: only to tell which instruction set is in use
  addon: ['base', 'format', 'cpu', 'retrieval', 'text', 'image', 'model', 'train', 'serve'],
  bench: ['base', 'format', 'device', 'cpu', 'gpu', 'text', 'image', 'model', 'serve'],
  fuzz: ['base', 'format', 'text', 'image', 'model', 'serve'],
  test: ['base', 'format', 'device', 'cpu', 'gpu', 'retrieval', 'text', 'image', 'model', 'train', 'serve']
}

function files(folder: string, pattern: RegExp): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
    .map((name) => join(folder, name).replaceAll('\\', '/'))
    .filter((name) => pattern.test(name))
}

function includes(file: string): string[] {
  return [...readFileSync(join(root, file), 'utf8').matchAll(/^\s*#\s*include\s*(["<][^">]+[">])/gm)].map(
    (match) => match[1]!
  )
}

const sources = files('native', /\.(h|cpp|mm|cu)$/)

describe('native/', () => {
  it('includes only downwards', () => {
    expect(sources.length).toBeGreaterThan(0)
    const wrong = sources.flatMap((file) => {
      const folder = file.split('/')[1]!
      const own = [folder, ...(allowed[folder] ?? [])]
      return includes(file)
        .filter((name) => /^"\w+\//.test(name) && !own.includes(name.slice(1).split('/')[0]!))
        .map((name) => `${file}: ${name}`)
    })
    expect(wrong).toEqual([])
  })

  it('keeps Node out of everything but the addon', () => {
    const wrong = sources.filter(
      (file) => !file.startsWith('native/addon/') && includes(file).some((name) => /napi|node_api|uv\.h|v8/.test(name))
    )
    expect(wrong).toEqual([])
  })

  // See scripts/check-symbols.mjs: anything inline from a C++ header may leak instructions into the whole program.
  it('gives kernel files C headers only', () => {
    const kernels = sources.filter((file) =>
      /native\/(cpu\/kernels\/.*|retrieval\/(kernel|maxsim_)\w*)\.(h|cpp)$/.test(file)
    )
    const wrong = kernels.flatMap((file) =>
      includes(file)
        .filter((name) => name.startsWith('<') && !name.endsWith('.h>'))
        .map((name) => `${file}: ${name}`)
    )
    expect(wrong).toEqual([])
  })

  it('compiles every source file of the engine and the addon', () => {
    const { variables } = JSON.parse(readFileSync(join(root, 'native', 'sources.gypi'), 'utf8')) as {
      variables: Record<string, string[]>
    }
    const listed = [...variables.engine_sources!, ...variables.addon_sources!]
    const there = files('native', /\.cpp$/).filter((file) =>
      /^native\/(?!gpu\/emulator\/)(base|format|device|cpu|gpu|retrieval|text|image|model|train|serve|addon)\//.test(
        file
      )
    )
    expect(new Set(listed).size).toBe(listed.length)
    expect([...listed].sort()).toEqual(there.sort())
  })
})

// From below to above. `index` is the package's own entry: the command loads it when a verb needs it, for a quick
// --help.
const libLayers: [string, string[]][] = [
  ['base', []],
  ['engine', ['base']],
  ['formats', ['base', 'engine']],
  ['images', ['base', 'engine']],
  ['video', ['base', 'images']],
  ['output', ['base', 'engine', 'formats', 'images']],
  ['retrieval', ['base', 'engine', 'formats', 'images']],
  ['convert', ['base', 'engine', 'formats', 'output', 'retrieval']],
  ['hub', ['base', 'engine', 'formats', 'convert']],
  ['train', ['base', 'engine', 'formats', 'images', 'convert']],
  ['datasets', ['base', 'engine', 'formats', 'images', 'output', 'train']],
  ['api', ['base', 'engine', 'formats', 'images', 'video', 'output', 'retrieval', 'convert', 'hub', 'train']],
  ['measure', ['base', 'engine', 'formats', 'images', 'output', 'convert', 'hub', 'train', 'datasets', 'api']],
  ['aisdk', ['base', 'images', 'output', 'api']],
  ['server', ['base', 'formats', 'images', 'output', 'convert', 'api']],
  ['queue', ['base', 'output', 'api', 'measure']],
  [
    'index',
    ['base', 'images', 'video', 'output', 'retrieval', 'convert', 'hub', 'train', 'datasets', 'api', 'measure']
  ],
  [
    'cli',
    [
      'base',
      'engine',
      'images',
      'video',
      'output',
      'retrieval',
      'convert',
      'hub',
      'train',
      'datasets',
      'api',
      'measure',
      'server',
      'queue',
      'index'
    ]
  ]
]

// Rooms of large folders, from below to above, with the rooms and the files beside them that they may use. Other files
// beside them are above all.
const rooms: Record<string, Record<string, string[]>> = {
  api: {
    options: [],
    request: ['options'],
    tasks: ['options', 'request'],
    many: ['options', 'request', 'tasks'],
    fit: ['options', 'request']
  },
  output: {
    schema: [],
    masks: ['colour'],
    labels: ['drawable', 'masks'],
    draw: ['colour', 'drawable', 'masks']
  }
}

/** 'formats' of lib/formats/npz and of lib/formats; 'index' of lib/index. */
const libLayer = (path: string): string => /^lib\/(\w+)/.exec(path)![1]!

/** Of a file of lib, types alone and lazy ones too. */
function imports(file: string): string[] {
  return [...readFileSync(join(root, file), 'utf8').matchAll(/(?:from |import\()'(\.[^']*)'/g)].map((match) =>
    join(dirname(file), match[1]!).replaceAll('\\', '/')
  )
}

describe('files', () => {
  const lines = (file: string): string[] => readFileSync(join(root, file), 'utf8').split('\n')
  const code = ['lib', 'native', 'test', 'scripts', 'bench', 'examples'].flatMap((folder) =>
    files(folder, /\.([cm]?[jt]s|h|cpp|mm|cu|metal|py|gypi)$/).filter((name) => !/fixtures|node_modules/.test(name))
  )

  it('have at most 500 lines', () => {
    const wrong = code.filter((file) => !file.endsWith('font-data.ts') && lines(file).length > 501)
    expect(wrong).toEqual([])
  })

  it('have lines of at most 120 characters', () => {
    expect(code.length).toBeGreaterThan(300)
    const wrong = code.flatMap((file) =>
      lines(file).flatMap((line, i) => ([...line].length > 120 ? [`${file}:${i + 1}`] : []))
    )
    expect(wrong).toEqual([])
  })
})

describe('error codes', () => {
  it('of the engine are known to the package, each by its own name', () => {
    const header = readFileSync(join(root, 'native', 'base', 'error.h'), 'utf8')
    const pairs = [...header.matchAll(/X\((\w+), "(\w+)"\)/g)].map(([, name, spelling]) => [name!, spelling!] as const)
    expect(pairs.length).toBeGreaterThan(10)
    for (const [name, spelling] of pairs) {
      expect(spelling).toBe(`ERR_${name.replace(/[A-Z]/g, '_$&').toUpperCase()}`)
      if (spelling !== nativeAborted) expect(errorCodes).toContain(spelling)
    }
  })
})

describe('lib/', () => {
  it('imports only downwards', () => {
    const wrong = files('lib', /\.ts$/).flatMap((file) => {
      const layer = libLayer(file)
      const own = [layer, ...(libLayers.find(([name]) => name === layer)?.[1] ?? [])]
      return imports(file)
        .filter((path) => !own.includes(libLayer(path)))
        .map((path) => `${file}: ${path}`)
    })
    expect(wrong).toEqual([])
  })

  it('asks nowhere whether a built-in of this realm made a value', () => {
    const builtIn = /\binstanceof \(?(\w+)/g
    const wrong = files('lib', /\.ts$/)
      .filter((file) => file !== 'lib/base/realms.ts')
      .flatMap((file) => [...readFileSync(join(root, file), 'utf8').matchAll(builtIn)].map(([, name]) => [file, name!]))
      .filter(([, name]) => name! in globalThis || name === 'Buffer')
    expect(wrong).toEqual([])
  })

  it.each(Object.entries(rooms))('has rooms in %s that import only downwards', (folder, allowed) => {
    const inside = `lib/${folder}/`
    /** The room, or the file beside them. */
    const place = (path: string): string => path.slice(inside.length).split('/')[0]!
    const inRooms = files(`lib/${folder}`, /\.ts$/).filter((file) => file.slice(inside.length).includes('/'))
    expect(new Set(inRooms.map(place))).toEqual(new Set(Object.keys(allowed)))
    const wrong = inRooms.flatMap((file) => {
      const own = [place(file), ...allowed[place(file)]!]
      return imports(file)
        .filter((path) => path.startsWith(inside) && !own.includes(place(path)))
        .map((path) => `${file}: ${path}`)
    })
    expect(wrong).toEqual([])
  })

  it('has layers that use none above them', () => {
    const names = libLayers.map(([name]) => name)
    const wrong = libLayers.filter(([, below], i) => below.some((name) => !names.slice(0, i).includes(name)))
    expect(wrong).toEqual([])
  })

  it('touches the addon in native.ts alone', () => {
    const wrong = files('lib', /\.ts$/).filter(
      (file) =>
        file !== 'lib/engine/native.ts' && /dlopen|\) as NativeBinding\b/.test(readFileSync(join(root, file), 'utf8'))
    )
    expect(wrong).toEqual([])
  })
})
