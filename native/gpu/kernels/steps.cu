// Products of up to 16 rows, as in decoding: every weight is read once, straight into a tensor core's registers.
//
// A group of threads has 16 rows of the weight; its warps take turns at pieces of 128 columns. A lane reads whole
// groups of 32 values of its two rows, in words of 16 bytes: neighbours read on in a row. Which 16 of the 128 columns
// meet in one product is free, as long as weights and activations agree: so each lane multiplies its own group. A row
// of x has its own column in the products, so it gets the same bits in any company.
#include "gpu/kernels/matrix.h"
#include "gpu/kernels/product_end.h"

KERNELS_BEGIN

CONSTANT uint32_t kStepWarps = 8, kStepThreads = kStepWarps * kWarp, kStepColumns = 16, kStepRows = 16;
CONSTANT uint32_t kStepTile = kStepColumns * kStepRows;

// Group `i` of 32 columns. sums: [row of x / 8][4], of the weights' rows of this lane
template <class Type>
__device__ inline void stepPiece(Place at, ARGS ProductArgs& a, GLOBAL const uint8_t* w, GLOBAL const uint16_t* x,
                                 uint32_t i, LOCAL float (&sums)[kStepRows / 8][4]) {
  const uint32_t row = matrixRow(at.lane()), groups = (a.k + 31) / 32;
  const uint32_t last = a.n - 1, n = at.x * kStepColumns + row;
  uint32_t first[16] = {}, second[16] = {};
  if (i < groups) {
    Pairs<Type>::read(w + size_t(smaller(n, last)) * a.wStrideBytes, a.k, i, first);
    Pairs<Type>::read(w + size_t(smaller(n + 8, last)) * a.wStrideBytes, a.k, i, second);
  }
#pragma unroll
  for (uint32_t tile = 0; tile < kStepRows / 8; ++tile) {
    if (8 * tile >= a.m) break;
#pragma unroll 1
    for (uint32_t part = 0; part < a.parts; ++part) {
      uint32_t b[16] = {};
      if (i < groups && 8 * tile + row < a.m) {
        GLOBAL const uint16_t* from = x + (size_t(8 * tile + row) * a.parts + part) * a.xStride + 32 * i;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const Words4 words = load16(from + 8 * j);
          b[4 * j] = words.x, b[4 * j + 1] = words.y, b[4 * j + 2] = words.z, b[4 * j + 3] = words.w;
        }
      }
#pragma unroll
      for (int j = 0; j < 16; j += 2)
        multiplyAdd<Type::kBrain>(sums[tile], first[j], second[j], first[j + 1], second[j + 1],
                                  matrixColumns(b[j], at.lane()), matrixColumns(b[j + 1], at.lane()));
    }
  }
}

// One sum of a group's [16 weights][16 rows of x]
struct StepSum {
  bool there;
  uint32_t row, column;
  float sum;
};

// All warps' sums, added in their order: one for each thread.
__device__ inline StepSum addWarps(Place at, ARGS ProductArgs& a, SHARED float* all,
                                   LOCAL const float (&sums)[kStepRows / 8][4]) {
  static_assert(kStepThreads == kStepTile, "a thread a sum");
  const uint32_t lane = at.lane();
  SHARED float* own = all + at.warp() * kStepTile;
  groupBarrier();   // all may still be read
#pragma unroll
  for (uint32_t tile = 0; tile < kStepRows / 8; ++tile)
#pragma unroll
    for (uint32_t j = 0; j < 4; ++j)
      own[(8 * tile + matrixPair(lane) * 2 + j % 2) * kStepColumns + matrixRow(lane) + j / 2 * 8] = sums[tile][j];
  groupBarrier();
  const uint32_t row = at.index / kStepColumns, column = at.x * kStepColumns + at.index % kStepColumns;
  if (row >= a.m || column >= a.n) return {false, 0, 0, 0};
  float sum = 0;
  for (uint32_t warp = 0; warp < kStepWarps; ++warp) sum += all[warp * kStepTile + at.index];
  return {true, row, column, sum};
}

template <class Type>
__device__ inline void stepProduct(Place at, ARGS ProductArgs& a, SHARED float* all, GLOBAL float* y,
                                   GLOBAL const uint16_t* x, GLOBAL const float* factors, GLOBAL const uint8_t* w,
                                   GLOBAL const float* bias) {
  float sums[kStepRows / 8][4] = {};
  const uint32_t pieces = (a.k + 127) / 128;
#pragma unroll 1
  for (uint32_t piece = at.warp(); piece < pieces; piece += kStepWarps)
    stepPiece<Type>(at, a, w, x, piece * 4 + matrixPair(at.lane()), sums);
  const StepSum s = addWarps(at, a, all, sums);
  if (s.there) finish(a, y, s.row, s.column, s.sum * factors[s.row], bias);
}

// y = gelu(x gate^T + bias) * (x up^T + bias)
template <class Type>
__device__ inline void stepGated(Place at, ARGS ProductArgs& a, SHARED float* all, GLOBAL float* y,
                                 GLOBAL const uint16_t* x, GLOBAL const float* factors, GLOBAL const uint8_t* gate,
                                 GLOBAL const uint8_t* up, GLOBAL const float* gateBias, GLOBAL const float* upBias) {
  float sums[kStepRows / 8][4] = {}, others[kStepRows / 8][4] = {};
  const uint32_t pieces = (a.k + 127) / 128;
#pragma unroll 1
  for (uint32_t piece = at.warp(); piece < pieces; piece += kStepWarps) {
    stepPiece<Type>(at, a, gate, x, piece * 4 + matrixPair(at.lane()), sums);
    stepPiece<Type>(at, a, up, x, piece * 4 + matrixPair(at.lane()), others);
  }
  const StepSum g = addWarps(at, a, all, sums), u = addWarps(at, a, all, others);
  if (!g.there) return;
  const float gated = geluTanh(g.sum * factors[g.row] + biasOf(a, gateBias, g.column));
  y[size_t(g.row) * a.yStride + g.column] = gated * (u.sum * factors[g.row] + biasOf(a, upBias, g.column, 2));
}

#define PG_STEP(name, Type)                                                                                        \
  KERNEL(kStepThreads, step_##name,                                                                                \
         (ProductArgs, float* y, const uint16_t* x, const float* factors, const uint8_t* w, const float* bias)) {  \
    TG_ARRAY(float, all, kStepWarps* kStepTile);                                                                   \
    stepProduct<Type>(PLACE, a, all, y, x, factors, w, bias);                                                      \
  }                                                                                                                \
  KERNEL(kStepThreads, step_gated_##name,                                                                          \
         (ProductArgs, float* y, const uint16_t* x, const float* factors, const uint8_t* gate, const uint8_t* up,  \
          const float* gateBias, const float* upBias)) {                                                           \
    TG_ARRAY(float, all, kStepWarps* kStepTile);                                                                   \
    stepGated<Type>(PLACE, a, all, y, x, factors, gate, up, gateBias, upBias);                                     \
  }
PG_MATRIX_TYPES(PG_STEP)
#undef PG_STEP

KERNELS_END
