// Products of up to 16 rows, as in decoding: every weight is read once, straight into a tensor core's registers.
//
// A block of threads has 16 rows of the weight; its warps take turns at pieces of 128 columns. Lane l reads whole
// groups of 32 values of rows l / 4 and l / 4 + 8, in words of 16 bytes: four neighbours read on in a row. Which 16 of
// the 128 columns meet in one product is free, as long as weights and activations agree: so each lane multiplies its
// own group. A row of x has its own column in the products, so it gets the same bits in any company.
#include "matrix.cuh"
#include "product_end.cuh"

namespace pg::gpu {

constexpr uint32_t kStepWarps = 8, kStepThreads = kStepWarps * kWarp, kStepColumns = 16, kStepRows = 16;

// sums: [row of x / 8][4], of the weights' rows of this lane
template <class Type>
__device__ inline void stepPiece(const ProductArgs& a, const uint8_t* w, const uint16_t* x, uint32_t i,
                                 float (&sums)[kStepRows / 8][4]) {
  const uint32_t lane = threadIdx.x % kWarp, row = lane / 4, groups = (a.k + 31) / 32;
  const uint32_t last = a.n - 1, n = blockIdx.x * kStepColumns + row;
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
        const uint16_t* from = x + (size_t(8 * tile + row) * a.parts + part) * a.xStride + 32 * i;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const Words4 words = load16(from + 8 * j);
          b[4 * j] = words.x, b[4 * j + 1] = words.y, b[4 * j + 2] = words.z, b[4 * j + 3] = words.w;
        }
      }
#pragma unroll
      for (int j = 0; j < 16; j += 2)
        multiplyAdd<Type::kBrain>(sums[tile], first[j], second[j], first[j + 1], second[j + 1], b[j], b[j + 1]);
    }
  }
}

// All warps' sums of a [16 weights][16 rows] tile, added in their order; calls put(row, column, sum).
template <class Put>
__device__ inline void addWarps(float* all, const float (&sums)[kStepRows / 8][4], const ProductArgs& a,
                                const Put& put) {
  constexpr uint32_t kTile = kStepColumns * kStepRows;
  const uint32_t lane = threadIdx.x % kWarp;
  float* own = all + threadIdx.x / kWarp * kTile;
  __syncthreads();   // all may still be read
#pragma unroll
  for (uint32_t tile = 0; tile < kStepRows / 8; ++tile)
#pragma unroll
    for (uint32_t j = 0; j < 4; ++j)
      own[(8 * tile + lane % 4 * 2 + j % 2) * kStepColumns + lane / 4 + j / 2 * 8] = sums[tile][j];
  __syncthreads();
  const uint32_t row = threadIdx.x / kStepColumns, column = threadIdx.x % kStepColumns;
  static_assert(kStepThreads == kTile, "a thread a sum");
  if (row >= a.m || blockIdx.x * kStepColumns + column >= a.n) return;
  float sum = 0;
  for (uint32_t warp = 0; warp < kStepWarps; ++warp) sum += all[warp * kTile + threadIdx.x];
  put(row, blockIdx.x * kStepColumns + column, sum);
}

template <class Type>
__device__ inline void step(const ProductArgs& a, float* all, float* y, const uint16_t* x, const float* factors,
                            const uint8_t* w, const float* bias) {
  float sums[kStepRows / 8][4] = {};
  const uint32_t pieces = (a.k + 127) / 128;
#pragma unroll 1
  for (uint32_t piece = threadIdx.x / kWarp; piece < pieces; piece += kStepWarps)
    stepPiece<Type>(a, w, x, piece * 4 + threadIdx.x % 4, sums);
  addWarps(all, sums, a,
           [&](uint32_t row, uint32_t column, float sum) { finish(a, y, row, column, sum * factors[row], bias); });
}

// y = gelu(x gate^T + bias) * (x up^T + bias)
template <class Type>
__device__ inline void stepGated(const ProductArgs& a, float* all, float* y, const uint16_t* x, const float* factors,
                                 const uint8_t* gate, const uint8_t* up, const float* gateBias, const float* upBias) {
  float sums[kStepRows / 8][4] = {}, others[kStepRows / 8][4] = {};
  const uint32_t pieces = (a.k + 127) / 128;
#pragma unroll 1
  for (uint32_t piece = threadIdx.x / kWarp; piece < pieces; piece += kStepWarps) {
    stepPiece<Type>(a, gate, x, piece * 4 + threadIdx.x % 4, sums);
    stepPiece<Type>(a, up, x, piece * 4 + threadIdx.x % 4, others);
  }
  float gated = 0;
  addWarps(all, sums, a, [&](uint32_t row, uint32_t column, float sum) {
    gated = geluTanh(sum * factors[row] + (gateBias ? gateBias[column] : 0.0f));
  });
  addWarps(all, others, a, [&](uint32_t row, uint32_t column, float sum) {
    y[size_t(row) * a.yStride + column] = gated * (sum * factors[row] + (upBias ? upBias[column] : 0.0f));
  });
}

#define PG_STEP(name, Type)                                                                                         \
  KERNEL(kStepThreads, step_##name,                                                                                 \
         (ProductArgs a, float* y, const uint16_t* x, const float* factors, const uint8_t* w, const float* bias)) { \
    TG_ARRAY(float, all, kStepWarps* kStepColumns* kStepRows);                                                      \
    step<Type>(a, all, y, x, factors, w, bias);                                                                     \
  }                                                                                                                 \
  KERNEL(kStepThreads, step_gated_##name,                                                                           \
         (ProductArgs a, float* y, const uint16_t* x, const float* factors, const uint8_t* gate, const uint8_t* up, \
          const float* gateBias, const float* upBias)) {                                                            \
    TG_ARRAY(float, all, kStepWarps* kStepColumns* kStepRows);                                                      \
    stepGated<Type>(a, all, y, x, factors, gate, up, gateBias, upBias);                                             \
  }
PG_MATRIX_TYPES(PG_STEP)
#undef PG_STEP

}  // namespace pg::gpu
