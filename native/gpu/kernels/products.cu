// Products in f32: of f32 weights, and of whatever the tensor-core kernels (steps.cu, tiles.cu) do not take.
#include "gpu/kernels/product_end.h"
#include "gpu/kernels/quantized.h"

KERNELS_BEGIN

CONSTANT uint32_t kProductWarps = 4, kProductRows = 8;

// A warp computes one column of y for up to kProductRows rows: lane l takes values l, l + 32, ..., then the lanes' sums
// are added. A row's order does not depend on the other rows.
KERNEL(kProductWarps* kWarp, product_f32,
       (ProductArgs, float* y, const float* x, const uint8_t* w, const float* bias)) {
  const Place at = PLACE;
  const uint32_t lane = at.lane(), n = at.x * kProductWarps + at.warp();
  const uint32_t first = at.y * kProductRows, rows = smaller(kProductRows, a.m - first);
  if (n >= a.n) return;  // whole warps
  GLOBAL const float* column = reinterpret_cast<GLOBAL const float*>(w + size_t(n) * a.wStrideBytes);
  float sum[kProductRows] = {};
  for (uint32_t k = lane; k < a.k; k += kWarp) {
    const float value = column[k];
#pragma unroll
    for (uint32_t r = 0; r < kProductRows; ++r)
      if (r < rows) sum[r] = fmaf(x[size_t(first + r) * a.xStride + k], value, sum[r]);
  }
#pragma unroll
  for (uint32_t r = 0; r < kProductRows; ++r) {
    if (r >= rows) break;
    const float all = warpSum(sum[r]);
    if (lane == 0) finish(a, y, first + r, n, all, bias);
  }
}

// dx = dy W, or dx += that: a thread has a column of kGradRows rows. m, k: of dx; n: rows of W.
CONSTANT uint32_t kGradRows = 4;

KERNEL(128, product_grad_f32, (ProductArgs, float* dx, const float* dy, const uint8_t* w)) {
  const Place at = PLACE;
  const uint32_t c = at.x * at.threads + at.index, first = at.y * kGradRows;
  const uint32_t rows = smaller(kGradRows, a.m - first);
  if (c >= a.k) return;
  float sum[kGradRows] = {};
  for (uint32_t n = 0; n < a.n; ++n) {
    const float value = reinterpret_cast<GLOBAL const float*>(w + size_t(n) * a.wStrideBytes)[c];
#pragma unroll
    for (uint32_t r = 0; r < kGradRows; ++r)
      if (r < rows) sum[r] = fmaf(dy[size_t(first + r) * a.yStride + n], value, sum[r]);
  }
#pragma unroll
  for (uint32_t r = 0; r < kGradRows; ++r) {
    if (r >= rows) break;
    GLOBAL float* to = dx + size_t(first + r) * a.xStride + c;
    *to = a.epilogue == kAdd ? *to + sum[r] : sum[r];
  }
}

KERNELS_END
