// docs/troubleshooting.md: each code of lib/base/errors.ts with its causes and what cures them.
// Test: test/docs/generated.test.ts; a code without an entry here fails it.

/** Rows of [what one sees or did, what to do]. */
export const cures = {
  ERR_MODEL_NOT_FOUND: [
    [
      'a path with a spelling mistake, or relative to another folder',
      'the message has the absolute path that was tried'
    ],
    [
      'the name of a hub model that was never pulled',
      '`npx paligemma pull NAME`; `npx paligemma pull --list` shows what is there'
    ],
    [
      'another cache than the one it was pulled into',
      '`PALIGEMMA_CACHE` must be the same for `pull` and for your program, also in a service or container'
    ],
    [
      'no such repository, revision or file on the hub',
      'compare with the address in the browser; `owner/name@revision` names a revision'
    ]
  ],
  ERR_MODEL_INVALID: [
    [
      'a download or copy that ended early',
      'compare sizes and checksums; `pull` resumes and checks, a copy by hand does neither'
    ],
    ['a Git LFS pointer of some hundred bytes instead of weights', '`git lfs pull`, or `npx paligemma pull`'],
    [
      'weights that are not finite, or keys and values beyond what the cache type holds',
      '`npx paligemma verify MODEL` names the tensor; convert again, or load with `kvCacheType: "f32"`'
    ],
    [
      'a file that another tool wrote',
      'the message names field and byte; [gguf.md](gguf.md) says what a file must hold'
    ]
  ],
  ERR_MODEL_UNSUPPORTED: [
    ['a model of another family', 'this engine runs PaliGemma 1 and 2 and ColPali only'],
    ['`segment` without a mask decoder', '`maskDecoder: "vae-oid.npz"` at load, or convert with `--mask-decoder`'],
    ['the text half of a llama.cpp pair alone', 'give its `mmproj` file as `vision`'],
    [
      'an adapter that changes what is computed (DoRA, PiSSA, ...)',
      '[adapters.md](adapters.md) lists what is taken and how to merge the rest'
    ]
  ],
  ERR_IMAGE_INVALID: [
    [
      'bytes that are no picture, such as a page that says "not found"',
      'look at the first bytes; the message names file or address'
    ],
    ['an address inside this network', '`allowPrivateAddresses: true` where you trust who gives the address'],
    [
      'a format that sharp was built without (HEIC of iPhones, RAW)',
      'convert it first; AVIF, JPEG, PNG, WebP, GIF, TIFF and SVG work'
    ],
    ['a picture that takes too long to decode', 'raise `decodeTimeoutMs` if you trust it']
  ],
  ERR_IMAGE_TOO_LARGE: [
    [
      'more pixels than `maxImagePixels`',
      'scale it down first, or raise the limit; the model sees 224 to 896 pixels a side anyway, ' +
        '[tiles](tiles.md) see more'
    ],
    [
      "a download, or a request's body, of more bytes than are taken",
      'the message names the limit; send the picture as JPEG or WebP, or smaller. Of a server it is `maxBodyBytes`'
    ]
  ],
  ERR_PROMPT_TOO_LONG: [
    [
      'pictures, prompt and `maxTokens` together exceed the context',
      'fewer pictures, fewer tokens, or a larger `contextSize` at load; a picture takes 256, 1024 or 4096 tokens'
    ]
  ],
  ERR_INVALID_OPTION: [
    [
      'a wrong type, range or name',
      'the message says what was expected and what came; unknown options are refused so that spelling mistakes show'
    ],
    ['another number of `<image>` in the prompt than there are pictures', 'leave `<image>` out: it is put in for you'],
    [
      'an expression or JSON Schema that is refused',
      'the message names the place; [constraints.md](constraints.md#json-schema) lists what is taken'
    ]
  ],
  ERR_OUT_OF_MEMORY: [
    [
      'a container or process limit',
      '`npx paligemma inspect MODEL` prints what it takes; raise the limit, or lower `maxSequences`, ' +
        '`contextSize`, or take a smaller type'
    ],
    ['a limit on threads (`TasksMax`, `--pids-limit`, `ulimit -u`)', 'raise it: Node itself needs about 11'],
    [
      'as many files and connections open as the process may have (EMFILE)',
      'raise the limit (`ulimit -n`, `LimitNOFILE`); close what your program leaves open; fewer requests at once'
    ],
    ['a 32-bit or small address space', 'a 64-bit Node']
  ],
  ERR_DEVICE_UNAVAILABLE: [
    [
      '`device: "cuda"` or `"metal"` where there is none, or an engine built without',
      '`device: "auto"` takes what is there; the message says what is missing'
    ]
  ],
  ERR_DEVICE_LOST: [
    [
      'a driver that was reset or updated, or a GPU that fell off the bus',
      'load the model again; the system log says why'
    ],
    ['the same again and again', '`device: "cpu"` until driver and hardware are looked at']
  ],
  ERR_MODEL_CHANGED: [
    [
      'a copy or download over a file that is in use',
      'write a new file and rename it over the old one; or `weights: "copy"`; then load again'
    ]
  ],
  ERR_BUSY: [
    [
      '`maxQueue` requests are under way',
      'answer 503 or 429 and let the client try again; more `maxSequences` or another process if it lasts'
    ]
  ],
  ERR_DEADLINE: [
    ['`deadlineMs` passed', 'fewer `maxTokens`, fewer requests at once, a smaller type, or a longer deadline']
  ],
  ERR_OUTPUT_INCOMPLETE: [
    [
      '`maxTokens` or a stop string cut an object or a choice',
      'raise `maxTokens`, leave stop strings out, give `maxLength` and `maxItems` in the schema; ' +
        '`error.text` is what there is'
    ]
  ],
  ERR_OUTPUT_INVALID: [
    [
      "the schema's own checks (zod's `refine`, ...) refuse a whole object",
      '`error.cause` has their issues; say in JSON Schema what can be said there, then it cannot happen'
    ]
  ],
  ERR_TRAINING_DIVERGED: [
    ['numbers stopped being finite', 'lower `learningRate`, set `clip`; the message names step and example'],
    ['an example with wrong labels or a broken picture', '`paligemma fit --dry-run` checks them']
  ],
  ERR_DISPOSED: [
    [
      'a call after `dispose()`, or running while it came',
      'await what runs first; in a server, stop listening before `dispose()`'
    ]
  ],
  ERR_DEPENDENCY_MISSING: [
    [
      'sharp is not there, or not for this system',
      '`npm install --os=linux --cpu=x64 sharp` with the system that it runs on; lockfiles of another system ' +
        'leave it out'
    ],
    ['bullmq or ioredis, which only queues need', '`npm install bullmq ioredis`']
  ],
  ERR_NATIVE_MISSING: [
    [
      'a bundler left the engine behind',
      '[deploy.md](deploy.md#bundlers-tracers-and-frameworks) has a line for each; or set `PALIGEMMA_NATIVE`'
    ],
    ['a system without a prebuilt engine', '`npx paligemma build` (python3, make, a C++20 compiler)'],
    [
      'Alpine with an engine for glibc only',
      'the package has both; check that `prebuilds/linux-*/node-paligemma.musl.node` was copied'
    ]
  ],
  ERR_ACCESS_DENIED: [
    [
      'the hub refuses: licence not accepted, no token or one without rights',
      'accept the terms on the model page, then `HF_TOKEN=hf_...` with read access; [pull.md](pull.md)'
    ],
    [
      'the system refuses to write',
      'the message names the file; only regular files are replaced, never devices, pipes or folders'
    ],
    [
      "Node's permission model (`--permission`) denies a path",
      'the message names the path and the flag, `--allow-fs-read=PATH` or `--allow-fs-write=PATH`'
    ]
  ],
  ERR_DOWNLOAD_FAILED: [
    ['no connection, a stall, a wrong checksum', 'run `pull` again: it goes on where it was'],
    [
      'a proxy or a certificate of your company',
      '`NODE_EXTRA_CA_CERTS`, and on Node 24 `NODE_USE_ENV_PROXY=1` with `HTTPS_PROXY`'
    ],
    ["a queue's Redis that cannot be reached", 'address, password and firewall; `redis-cli -u URL ping`']
  ],
  ERR_DISK_FULL: [
    [
      'no room in the cache or for the output',
      '`PALIGEMMA_CACHE` on a larger disk; `npx paligemma pull --remove NAME` frees some; what was there ' +
        'before is unchanged'
    ]
  ],
  ERR_WRITE_FAILED: [
    ['the disk or network file system failed', "`error.cause` has the system's own words; try another disk"]
  ],
  ERR_INTERNAL: [['a mistake of ours', 'please report it with the message and what `npx paligemma verify` prints']]
}

/** What happens without a code. */
const silent = [
  [
    'the text is nonsense',
    'a base checkpoint ("pt") asked as if it were a "mix" one: [checkpoints.md](checkpoints.md); else `npx ' +
      'paligemma verify MODEL`'
  ],
  [
    'no boxes, or the wrong ones',
    'name one thing in singular ("detect cow"); lower `minScore`; small things need 448 px, 896 px or [tiles](tiles.md)'
  ],
  ['answers differ from other programs', '[results.md](results.md) names what they depend on'],
  [
    'the first answer is slow',
    'the picture is read and the prompt filled in first; later questions about it take half as long; ' +
      '[performance.md](performance.md)'
  ],
  [
    'everything is slow in a container',
    'ask for whole CPUs; `info.threads` says how many are used, `npx paligemma bench` how far from the limit you are'
  ],
  ['`Illegal instruction`', 'please report it; `PALIGEMMA_ISA=scalar` runs everywhere']
]

const table = (rows) => `| seen | do |\n|---|---|\n${rows.map(([seen, cure]) => `| ${seen} | ${cure} |`).join('\n')}\n`

/** `meanings`: code and meaning of each, in their order. */
export function troubleshootingPage(meanings) {
  const missing = meanings.find(([code]) => !cures[code])
  if (missing) throw new Error(`scripts/docs/troubleshooting-page.mjs has no cure for ${missing[0]}`)
  const sections = meanings.map(
    ([code, meaning]) => `## ${code}\n\n${meaning[0].toUpperCase()}${meaning.slice(1)}.\n\n${table(cures[code])}`
  )
  return `# Troubleshooting

Every error of this package is a \`PaliGemmaError\` with a \`code\` that never changes and a message that names what is
wrong; this page has causes and cures by code. It is made of the list in the source by \`npm run docs\`.

## Without a code

${table(silent)}
${sections.join('\n')}`
}

/** Code and meaning, from the table above \`ErrorCode\` in the source. */
export function meaningsOf(source) {
  return [...source.matchAll(/^ \* \| `(ERR_[A-Z_]+)` \| (.*) \|$/gm)].map(([, code, meaning]) => [code, meaning])
}
