#pragma once
// Keys and values where they lie, and which of them a row sees.
#include "gpu/kernels/common.h"

KERNELS_BEGIN

CONSTANT uint32_t kPageKeys = 64;

// ---- how a cache's rows are read: eight values from a multiple of eight on, or one. whole: all eight are there, and
// the row is aligned ----

struct RowsF32 {
  __device__ static float one(GLOBAL const uint8_t* row, uint32_t c) {
    return reinterpret_cast<GLOBAL const float*>(row)[c];
  }
  __device__ static void eight(GLOBAL const uint8_t* row, uint32_t c, uint32_t n, bool whole, LOCAL float* y) {
    if (!whole) {
#pragma unroll
      for (uint32_t j = 0; j < 8; ++j) y[j] = c + j < n ? one(row, c + j) : 0.0f;
      return;
    }
#pragma unroll
    for (uint32_t j = 0; j < 8; j += 4) {
      const Words4 w = load16(row + 4 * (c + j));
      y[j] = asFloat(w.x), y[j + 1] = asFloat(w.y), y[j + 2] = asFloat(w.z), y[j + 3] = asFloat(w.w);
    }
  }
};

struct RowsF16 {
  __device__ static float one(GLOBAL const uint8_t* row, uint32_t c) {
    return halfToFloat(reinterpret_cast<GLOBAL const uint16_t*>(row)[c]);
  }
  __device__ static void eight(GLOBAL const uint8_t* row, uint32_t c, uint32_t n, bool whole, LOCAL float* y) {
    if (!whole) {
#pragma unroll
      for (uint32_t j = 0; j < 8; ++j) y[j] = c + j < n ? one(row, c + j) : 0.0f;
      return;
    }
    const Words4 w = load16(row + 2 * c);
    const uint32_t words[4] = {w.x, w.y, w.z, w.w};
#pragma unroll
    for (uint32_t j = 0; j < 4; ++j)
      y[2 * j] = halfToFloat(words[j] & 0xffff), y[2 * j + 1] = halfToFloat(words[j] >> 16);
  }
};

// Blocks of 34 bytes: a scale, 32 values
struct RowsQ8 {
  __device__ static float one(GLOBAL const uint8_t* row, uint32_t c) {
    GLOBAL const uint8_t* block = row + c / 32 * 34;
    return halfToFloat(*reinterpret_cast<GLOBAL const uint16_t*>(block)) *
           float(reinterpret_cast<GLOBAL const int8_t*>(block + 2)[c % 32]);
  }
  __device__ static void eight(GLOBAL const uint8_t* row, uint32_t c, uint32_t n, bool, LOCAL float* y) {
#pragma unroll
    for (uint32_t j = 0; j < 8; ++j) y[j] = c + j < n ? one(row, c + j) : 0.0f;
  }
};

template <class Rows>
__device__ inline void readEight(GLOBAL const uint8_t* row, uint32_t c, uint32_t n, bool aligned, LOCAL float* y) {
  Rows::eight(row, c, n, aligned && c + 8 <= n, y);
}

struct PagedKeys {
  GLOBAL const uint64_t* pages;
  size_t keyBytes, valueBytes, rowBytes;   // of the layer and head in a page
  __device__ GLOBAL const uint8_t* key(uint32_t token) const { return row(token, keyBytes); }
  __device__ GLOBAL const uint8_t* value(uint32_t token) const { return row(token, valueBytes); }
  __device__ GLOBAL const uint8_t* row(uint32_t token, size_t offset) const {
    return reinterpret_cast<GLOBAL const uint8_t*>(pages[token / kPageKeys]) + offset + token % kPageKeys * rowBytes;
  }
};

struct DenseKeys {
  GLOBAL const uint8_t *keys, *values;
  size_t keyStride, valueStride;   // bytes
  __device__ GLOBAL const uint8_t* key(uint32_t token) const { return keys + token * keyStride; }
  __device__ GLOBAL const uint8_t* value(uint32_t token) const { return values + token * valueStride; }
};

// A row of one of the launch's sequences, and the keys that it sees: see AttentionMask.
struct QueryRow {
  ARGS AttentionSequence* sequence;
  uint32_t row, first, end;
  __device__ QueryRow(ARGS AttentionArgs& a, uint32_t index, GLOBAL const int32_t* positions) {
    sequence = a.sequence;
    while (index >= sequence->firstRow + sequence->rows) ++sequence;
    row = index - sequence->firstRow;
    const int32_t position = positions[sequence->positionOffset + row];
    const bool inPrefix = position < sequence->prefix, wide = inPrefix && !sequence->windowInPrefix;
    first = sequence->window > 0 && !wide && position >= sequence->window ? position - sequence->window + 1 : 0;
    end = smaller(inPrefix ? sequence->prefix : position + 1, sequence->tokens);
  }
};

__device__ inline PagedKeys pagedKeys(ARGS AttentionArgs& a, ARGS AttentionSequence& sequence, uint32_t kvHead) {
  return {reinterpret_cast<GLOBAL const uint64_t*>(sequence.pages), a.keyBytes + kvHead * a.headBytes,
          a.valueBytes + kvHead * a.headBytes, a.rowBytes};
}

KERNELS_END
