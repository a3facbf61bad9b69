// Products of many rows, as in prefill and vision: tiles of 128 rows of x by 64 of the weight, whose groups are
// dequantized into shared memory once for all 128.
//
// gelu is not among the ends: unrolled here it would be most of the code, and it is an op of its own.
// Shared rows are 64 values and 8 more: then the words that a warp's lanes read for a product, and the 16 bytes that
// eight neighbours write, lie in different banks.
#include "gpu/kernels/matrix.h"
#include "gpu/kernels/product_end.h"

KERNELS_BEGIN

CONSTANT uint32_t kTileThreads = 128, kTileRows = 128, kTileColumns = 64, kTileDepth = 64, kTilePitch = 72;
CONSTANT uint32_t kPitchWords = kTilePitch / 2;
// A warp has 64 rows by 32 columns: 4 by 4 products of 16 by 8.
CONSTANT uint32_t kWarpRows = 64, kWarpColumns = 32;

__device__ inline void storeShared16(SHARED uint16_t* to, Words4 words) {
  *reinterpret_cast<SHARED Words4*>(to) = words;
}

// Rows of x, values [k, k + kTileDepth); behind the last row zeros
__device__ inline void loadActivations(Place at, ARGS ProductArgs& a, SHARED uint16_t* tile, GLOBAL const uint16_t* x,
                                       uint32_t part, uint32_t k) {
  constexpr uint32_t kWords = kTileDepth / 8;   // of 16 bytes
#pragma unroll
  for (uint32_t i = at.index; i < kTileRows * kWords; i += kTileThreads) {
    const uint32_t row = i / kWords, word = i % kWords, m = at.y * kTileRows + row;
    Words4 words{0, 0, 0, 0};
    if (m < a.m) words = load16(x + (size_t(m) * a.parts + part) * a.xStride + k + 8 * word);
    storeShared16(tile + row * kTilePitch + 8 * word, words);
  }
}

// A thread a group of 32 values
template <class Type>
__device__ inline void loadWeights(Place at, ARGS ProductArgs& a, SHARED uint16_t* tile, GLOBAL const uint8_t* w,
                                   uint32_t k) {
  static_assert(kTileThreads == kTileColumns * kTileDepth / 32, "a thread a group");
  const uint32_t row = at.index / 2, i = k / 32 + at.index % 2, n = at.x * kTileColumns + row;
  uint32_t pairs[16] = {};
  if (n < a.n && 32 * i < a.k) Pairs<Type>::read(w + size_t(n) * a.wStrideBytes, a.k, i, pairs);
#pragma unroll
  for (uint32_t j = 0; j < 4; ++j)
    storeShared16(tile + row * kTilePitch + at.index % 2 * 32 + 8 * j,
                  Words4{pairs[4 * j], pairs[4 * j + 1], pairs[4 * j + 2], pairs[4 * j + 3]});
}

template <bool kBf16>
__device__ inline void multiplyTiles(Place at, SHARED const uint32_t* x, SHARED const uint32_t* w,
                                     LOCAL float (&sums)[4][4][4]) {
  const uint32_t lane = at.lane(), warp = at.warp(), own = matrixRow(lane) * kPitchWords + matrixPair(lane);
  SHARED const uint32_t* rows = x + warp / 2 * kWarpRows * kPitchWords + own;
  SHARED const uint32_t* columns = w + warp % 2 * kWarpColumns * kPitchWords + own;
#pragma unroll
  for (uint32_t k = 0; k < kTileDepth / 2; k += 8) {
    uint32_t b[4][2];
#pragma unroll
    for (uint32_t j = 0; j < 4; ++j) {
      b[j][0] = matrixColumns(columns[8 * j * kPitchWords + k], lane);
      b[j][1] = matrixColumns(columns[8 * j * kPitchWords + k + 4], lane);
    }
#pragma unroll
    for (uint32_t i = 0; i < 4; ++i) {
      SHARED const uint32_t* row = rows + 16 * i * kPitchWords + k;
      const uint32_t a0 = row[0], a1 = row[8 * kPitchWords], a2 = row[4], a3 = row[8 * kPitchWords + 4];
#pragma unroll
      for (uint32_t j = 0; j < 4; ++j) multiplyAdd<kBf16>(sums[i][j], a0, a1, a2, a3, b[j][0], b[j][1]);
    }
  }
}

template <class Type>
__device__ inline void tileProduct(Place at, ARGS ProductArgs& a, SHARED uint16_t* xTile, SHARED uint16_t* wTile,
                                   GLOBAL float* y, GLOBAL const uint16_t* x, GLOBAL const float* factors,
                                   GLOBAL const uint8_t* w, GLOBAL const float* bias) {
  float sums[4][4][4] = {};
#pragma unroll 1
  for (uint32_t k = 0; k < a.k; k += kTileDepth)
#pragma unroll 1
    for (uint32_t part = 0; part < a.parts; ++part) {
      groupBarrier();   // the last tiles have been multiplied
      if (part == 0) loadWeights<Type>(at, a, wTile, w, k);
      loadActivations(at, a, xTile, x, part, k);
      groupBarrier();
      multiplyTiles<Type::kBrain>(at, reinterpret_cast<SHARED const uint32_t*>(xTile),
                                  reinterpret_cast<SHARED const uint32_t*>(wTile), sums);
    }
  const uint32_t m = at.y * kTileRows + at.warp() / 2 * kWarpRows + matrixRow(at.lane());
  const uint32_t n = at.x * kTileColumns + at.warp() % 2 * kWarpColumns + matrixPair(at.lane()) * 2;
#pragma unroll
  for (uint32_t i = 0; i < 4; ++i)
#pragma unroll
    for (uint32_t h = 0; h < 2; ++h) {
      const uint32_t row = m + 16 * i + 8 * h;
      if (row >= a.m) continue;
      const float factor = factors[row];
#pragma unroll
      for (uint32_t j = 0; j < 4; ++j)
#pragma unroll
        for (uint32_t c = 0; c < 2; ++c)
          if (n + 8 * j + c < a.n) store(a, y, row, n + 8 * j + c, sums[i][j][2 * h + c] * factor, bias);
    }
}

#define PG_TILE(name, Type)                                                                                       \
  KERNEL(kTileThreads, tile_##name,                                                                               \
         (ProductArgs, float* y, const uint16_t* x, const float* factors, const uint8_t* w, const float* bias)) { \
    TG_ARRAY(uint16_t, xTile, kTileRows* kTilePitch);                                                             \
    TG_ARRAY(uint16_t, wTile, kTileColumns* kTilePitch);                                                          \
    tileProduct<Type>(PLACE, a, xTile, wTile, y, x, factors, w, bias);                                            \
  }
PG_MATRIX_TYPES(PG_TILE)
#undef PG_TILE

KERNELS_END
