#pragma once
// What becomes of a product's sums.
#include "common.cuh"

namespace pg::gpu {

__device__ inline void store(const ProductArgs& a, float* y, uint32_t row, uint32_t column, float sum,
                             const float* bias) {
  float* to = y + size_t(row) * a.yStride + column;
  if (bias) sum += bias[column];
  *to = a.epilogue == kAdd ? *to + sum : sum;
}

__device__ inline void finish(const ProductArgs& a, float* y, uint32_t row, uint32_t column, float sum,
                              const float* bias) {
  if (a.epilogue != kGelu) return store(a, y, row, column, sum, bias);
  y[size_t(row) * a.yStride + column] = geluTanh(bias ? sum + bias[column] : sum);
}

}  // namespace pg::gpu
