/** The assignment problem: pairs of rows and columns with the largest sum of values (Kuhn, Munkres). Pure. */

/** Pairs [row, column] with values above 0. */
export function assign(
  rows: number,
  columns: number,
  value: (row: number, column: number) => number
): [number, number][] {
  if (rows === 0 || columns === 0) return []
  if (rows > columns) return assign(columns, rows, (c, r) => value(r, c)).map(([c, r]) => [r, c])
  const values = Array.from({ length: rows }, (_, r) => Float64Array.from({ length: columns }, (_, c) => value(r, c)))
  // Potentials of rows and columns; column 0 and row 0 stand for "none yet". Costs are negative values.
  const ofRow = new Float64Array(rows + 1)
  const ofColumn = new Float64Array(columns + 1)
  const rowOf = new Int32Array(columns + 1)
  for (let row = 1; row <= rows; row++) augment(row, values, ofRow, ofColumn, rowOf)
  const pairs: [number, number][] = []
  for (let column = 1; column <= columns; column++) {
    const row = rowOf[column]!
    if (row > 0 && values[row - 1]![column - 1]! > 0) pairs.push([row - 1, column - 1])
  }
  return pairs
}

/** Gives one more row a column, moving others along the cheapest path. */
function augment(
  row: number,
  values: Float64Array[],
  ofRow: Float64Array,
  ofColumn: Float64Array,
  rowOf: Int32Array
): void {
  const columns = ofColumn.length - 1
  const least = new Float64Array(columns + 1).fill(Infinity)
  const from = new Int32Array(columns + 1)
  const visited = new Uint8Array(columns + 1)
  rowOf[0] = row
  let at = 0
  do {
    visited[at] = 1
    const current = rowOf[at]!
    let step = Infinity
    let next = 0
    for (let column = 1; column <= columns; column++) {
      if (visited[column]) continue
      const cost = -values[current - 1]![column - 1]! - ofRow[current]! - ofColumn[column]!
      if (cost < least[column]!) {
        least[column] = cost
        from[column] = at
      }
      if (least[column]! < step) {
        step = least[column]!
        next = column
      }
    }
    for (let column = 0; column <= columns; column++) {
      if (visited[column]) {
        ofRow[rowOf[column]!]! += step
        ofColumn[column]! -= step
      } else least[column]! -= step
    }
    at = next
  } while (rowOf[at] !== 0)
  for (; at > 0; at = from[at]!) rowOf[at] = rowOf[from[at]!]!
}
