// Measured runs to one report, as JSON and as Markdown.

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
}

const rounded = (value, digits = 4) => Number(value.toPrecision(digits))

/** `runs`: milliseconds of the clock and of processors. */
export function summary(runs) {
  const of = (key) => runs.map((run) => run[key])
  const [ms, cpu] = [of('ms'), of('cpuMs')]
  return {
    ms: rounded(median(ms)),
    range: [rounded(Math.min(...ms)), rounded(Math.max(...ms))],
    cpuMs: rounded(median(cpu)),
    cpuRange: [rounded(Math.min(...cpu)), rounded(Math.max(...cpu))]
  }
}

/** One line of the table: `ours` and `theirs` are lists of runs. A ratio above 1 is ours. */
export function compared({ part, threads, names, ours, theirs, share }) {
  const [a, b] = [summary(ours), summary(theirs)]
  return {
    part,
    threads,
    ours: { name: names[0], ...a },
    theirs: { name: names[1], ...b },
    ratio: { clock: rounded(b.ms / a.ms, 3), processor: rounded(b.cpuMs / a.cpuMs, 3) },
    ...(share && { share: rounded(share(a.ms), 3) })
  }
}

const shownMs = (ms) => (ms < 10 ? ms.toPrecision(2) : Math.round(ms))
const figure = ({ ms, range, cpuMs }) =>
  `${shownMs(ms)} (${range.map(shownMs).join('-')}); ${shownMs(cpuMs)} of a processor`

/** `part`, `at3b`: of a whole prefill's operations, what ours computes. */
function prefillNote({ part, at3b }) {
  const percent = (share) => `${Math.round(100 * share)} %`
  return (
    `\nOf a prefill ours computes ${percent(part)} (of the last layer only what is asked for), the peers all of it; ` +
    `of 26 layers it would be ${percent(at3b)}, and the ratios of prefill ${rounded(part / at3b, 2)} times these.`
  )
}

export function markdown(report) {
  const { machine, limits, rows, leftOut, prefillWork } = report
  const lines = [
    `${report.command}, ${report.date.slice(0, 10)}: ${machine.cpu}, ${machine.cores} cores, ${machine.isa}, ` +
      `Node ${machine.node}; load of the machine ${machine.load[0]} before and ${machine.load[1]} after. ` +
      `Model ${report.size}, prefill of ${report.prefill} tokens, ${report.tokens} decoded, ${report.rounds} rounds.`,
    '',
    ...limits.map(
      ({ threads, readGBps, int8Gops }) =>
        `Limits of ${threads} thread${threads > 1 ? 's' : ''}: reads ${readGBps} GB/s, 8-bit peak ${int8Gops} GOPS.`
    ),
    '',
    'Milliseconds (decoding: of a token), median (range); processor time. Ratios above 1: ours is faster.',
    '',
    "| work | threads | ours | peer | peer's | ratio: clock | processor | ours, of the limit |",
    '|---|---|---|---|---|---|---|---|',
    ...rows.map(
      ({ part, threads, ours, theirs, ratio, share }) =>
        `| ${part}, ${ours.name} | ${threads} | ${figure(ours)} | ${theirs.name} | ${figure(theirs)} | ` +
        `${ratio.clock} | ${ratio.processor} | ${share === undefined ? '' : `${Math.round(100 * share)} %`} |`
    ),
    ...(prefillWork ? [prefillNote(prefillWork)] : []),
    ...leftOut.map(({ name, why }) => `\nLeft out: ${name}: ${why}`)
  ]
  return `${lines.join('\n')}\n`
}
