/** Rows of every-call.addon.test.ts: what makes something of pictures, boxes and masks without a model. */
import * as api from '../../lib/index'
import { looped, made, sync, type Row } from './call-table'

export const picture = { data: new Uint8Array(28 * 28 * 3), width: 28, height: 28, channels: 3 }
export const signal = new AbortController().signal
export const transform = { scaleX: 1, scaleY: 1, offsetX: 0, offsetY: 2, size: 28, sourceWidth: 28, sourceHeight: 24 }
export const limits = { maxImagePixels: 1e6, decodeTimeoutMs: 1000, allowPrivateAddresses: false }

const normalized = { yMin: 0, xMin: 0, yMax: 1, xMax: 1 }
const mask = { width: 28, height: 28, data: new Uint8Array(28 * 28) }
const drawable = { label: 'cow', score: 0.5, box: { x: 1, y: 1, width: 9, height: 9 }, mask }

export const outputRows: Record<string, Row> = {
  maskToRle: sync(api.maskToRle, mask, { form: 'uncompressed' }),
  rleToMask: sync(api.rleToMask, { size: [4, 4], counts: [3, 13] }, { maxImagePixels: 100 }),
  reviveResults: sync(api.reviveResults, 'mask', { width: 4, height: 4, counts: '3' }),
  toXyxy: sync(api.toXyxy, drawable.box),
  fromXyxy: sync(api.fromXyxy, [1, 2, 3, 4]),
  cropBox: { call: api.cropBox, args: () => [picture, drawable, { padding: 0.1, cutOut: true, ...limits, signal }] },
  maskToPolygons: sync(api.maskToPolygons, mask, { tolerance: 1, minArea: 2 }),
  maskToSvg: sync(api.maskToSvg, mask, { form: 'svg', color: 'red', opacity: 0.5, tolerance: 1, minArea: 2 }),
  toCoco: sync(api.toCoco, [{ fileName: 'a.png', objects: [drawable], width: 28, height: 28, id: 1 }], {
    labels: ['cow'],
    masks: 'rle',
    tolerance: 1
  }),
  toYolo: sync(api.toYolo, [drawable], {
    labels: ['cow'],
    task: 'segment',
    scores: true,
    tolerance: 1,
    width: 28,
    height: 28
  }),
  boxOverlap: sync(api.boxOverlap, normalized, normalized),
  suppressOverlaps: sync(api.suppressOverlaps, [{ label: 'a', normalized, score: 1 }], 0.5, { classAgnostic: true }),
  preprocessImage: {
    call: api.preprocessImage,
    args: () => [picture, { size: 28, resize: 'bilinear', fit: 'pad', ...limits, signal }]
  },
  parseOutput: sync(api.parseOutput, '<loc0000><loc0000><loc0512><loc0512> cow', {
    width: 9,
    height: 9,
    locScale: 1023,
    transform
  }),
  decodeLocation: sync(api.decodeLocation, '<loc0512>', { locScale: 1024 }),
  encodeLocation: sync(api.encodeLocation, 0.5, { locScale: 1024 }),
  drawDetections: {
    call: api.drawDetections,
    args: () => [
      picture,
      [drawable],
      {
        labels: true,
        tiles: true,
        scores: true,
        boxes: true,
        masks: true,
        colors: ['red'],
        lineWidth: 2,
        fontSize: 9,
        maskOpacity: 0.5,
        scale: 1,
        picture: true,
        format: 'svg',
        ...limits,
        signal
      }
    ]
  },
  'new Tracker': made(api.Tracker, {
    newScore: 0.5,
    keepSeconds: 1,
    confirmFrames: 1,
    lines: [{ name: 'a', from: [0, 0], to: [1, 1] }],
    zones: [
      {
        name: 'a',
        points: [
          [0, 0],
          [1, 0],
          [1, 1]
        ]
      }
    ]
  }),
  'Tracker.update': sync(
    (...args) => (new api.Tracker().update as (...args: never[]) => unknown).apply(new api.Tracker(), args),
    [{ label: 'a', score: 1, normalized: { yMin: 0, xMin: 0, yMax: 1, xMax: 1 } }],
    1
  ),
  videoFrames: looped(api.videoFrames, 'no.mp4', {
    count: 1,
    fps: undefined,
    times: undefined,
    start: 0,
    end: 1,
    size: 9,
    allowPrivateAddresses: false,
    allowPlaylists: false,
    signal
  })
}
