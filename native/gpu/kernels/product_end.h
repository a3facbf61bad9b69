#pragma once
// What becomes of a product's sums.
#include "gpu/kernels/common.h"

KERNELS_BEGIN

// That of a column, of the first or second of a launch's weights
__device__ inline float biasOf(ARGS ProductArgs& a, GLOBAL const float* bias, uint32_t column, uint32_t which = 1) {
  return a.biases & which ? bias[column] : 0.0f;
}

__device__ inline void store(ARGS ProductArgs& a, GLOBAL float* y, uint32_t row, uint32_t column, float sum,
                             GLOBAL const float* bias) {
  GLOBAL float* to = y + size_t(row) * a.yStride + column;
  sum += biasOf(a, bias, column);
  *to = a.epilogue == kAdd ? *to + sum : sum;
}

__device__ inline void finish(ARGS ProductArgs& a, GLOBAL float* y, uint32_t row, uint32_t column, float sum,
                              GLOBAL const float* bias) {
  if (a.epilogue != kGelu) return store(a, y, row, column, sum, bias);
  y[size_t(row) * a.yStride + column] = geluTanh(sum + biasOf(a, bias, column));
}

KERNELS_END
