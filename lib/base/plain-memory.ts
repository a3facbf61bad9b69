/**
 * Arrays in memory of their own, never in shared one: what web interfaces (Response, fetch, Blob) take. TypeScript
 * names the kind of memory since 5.7 (`Uint8Array<ArrayBuffer>`); older versions read the same declarations without it.
 */
export type PlainBytes = ReturnType<Uint8Array['slice']>
export type PlainFloats = ReturnType<Float32Array['slice']>
export type PlainDoubles = ReturnType<Float64Array['slice']>
export type PlainInts = ReturnType<Int8Array['slice']>
export type PlainBuffer = ReturnType<typeof Buffer.alloc>
