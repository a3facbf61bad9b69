/** Boxes and masks: from results, and onto canvases at the picture's own resolution. */

const palette = ['#e03131', '#1971c2', '#2b8a3e', '#d9480f', '#9c36b5', '#0c8599', '#c2255c', '#5c940d']

/** The same colour for the same label. */
export function colours(objects) {
  const labels = [...new Set(objects.map(({ label }) => label))]
  return (label) => palette[labels.indexOf(label) % palette.length]
}

/** COCO's compressed run lengths: numbers of pixels outside, inside, outside, ... column by column. */
export function runs(counts) {
  const found = []
  for (let at = 0; at < counts.length; ) {
    let value = 0
    let shift = 0
    let more = true
    while (more) {
      const code = counts.charCodeAt(at++) - 48
      value |= (code & 31) << shift
      more = (code & 32) !== 0
      shift += 5
      if (!more && code & 16) value |= -1 << shift
    }
    if (found.length > 2) value += found[found.length - 2]
    found.push(value)
  }
  return found
}

export const areaOf = (counts) => runs(counts).reduce((sum, run, i) => sum + (i % 2 ? run : 0), 0)

function drawMask(context, { mask, box }, colour) {
  const [height] = mask.size
  const x0 = Math.floor(box.x)
  const y0 = Math.floor(box.y)
  const width = Math.ceil(box.width) + 1
  const rows = Math.ceil(box.height) + 1
  const layer = new OffscreenCanvas(width, rows)
  const inner = layer.getContext('2d')
  inner.fillStyle = colour
  let at = 0
  runs(mask.counts).forEach((length, i) => {
    // a run may go on in the next columns
    for (let left = length; left > 0; ) {
      const column = Math.floor(at / height)
      const row = at % height
      const part = Math.min(left, height - row)
      if (i % 2) inner.fillRect(column - x0, row - y0, 1, part)
      at += part
      left -= part
    }
  })
  context.globalAlpha = 0.5
  context.drawImage(layer, x0, y0)
  context.globalAlpha = 1
}

/** Draws objects over a picture of this size; `marked`: one that stands out. */
export function draw(canvas, objects, { width, height, marked }) {
  canvas.width = width
  canvas.height = height
  const context = canvas.getContext('2d')
  const colourOf = colours(objects)
  const unit = Math.max(width, height) / 300
  context.font = `600 ${Math.max(12, unit * 8.5)}px system-ui, sans-serif`
  context.textBaseline = 'middle'
  for (const object of objects) if (object.mask) drawMask(context, object, colourOf(object.label))
  for (const object of objects) {
    const { x, y, width: w, height: h } = object.box
    context.strokeStyle = colourOf(object.label)
    context.lineWidth = Math.max(2, unit) * (object === marked ? 2 : 1)
    context.strokeRect(x, y, w, h)
  }
  for (const object of objects) drawLabel(context, object, colourOf(object.label), unit, width)
}

function drawLabel(context, { label, id, score, box }, colour, unit, width) {
  const text = `${id === undefined ? '' : `#${id} `}${label}${score === undefined ? '' : ` ${score.toFixed(2)}`}`
  const padding = unit * 2.5
  const tall = Math.max(16, unit * 13)
  const wide = context.measureText(text).width + 2 * padding
  const x = Math.max(0, Math.min(box.x, width - wide))
  const y = box.y >= tall ? box.y - tall : box.y
  context.fillStyle = colour
  context.fillRect(x, y, wide, tall)
  context.fillStyle = '#fff'
  context.fillText(text, x + padding, y + tall / 2)
}

export const at = (objects, x, y) =>
  objects
    .filter(({ box }) => x >= box.x && y >= box.y && x <= box.x + box.width && y <= box.y + box.height)
    .sort((a, b) => a.box.width * a.box.height - b.box.width * b.box.height)[0]
