// Gradients of rows in the vector words of simd_*.h, after vector_kernels.inl.h. Static functions only.
#pragma once

// Values [i, i + kLanes) of a row of n; lanes beyond its end hold zero.
PG_INLINE V vloadRow(const float* p, int64_t i, int64_t n) {
  return i + kLanes <= n ? vload(p + i) : vloadFirst(p + i, n - i);
}
PG_INLINE void vstoreRow(float* p, V v, int64_t i, int64_t n) {
  if (i + kLanes <= n) vstore(p + i, v);
  else vstoreFirst(p + i, v, n - i);
}
PG_INLINE void vstoreSum(float* p, V v, bool add, int64_t i, int64_t n) {
  vstoreRow(p, add ? vadd(vloadRow(p, i, n), v) : v, i, n);
}

static void rmsNormGrad(float* dx, const float* dy, const float* x, const float* weight, float eps, bool add,
                        int64_t n) {
  const float factor = 1.0f / sqrtf(dot(x, x, n) / (float)n + eps);
  V products = vzero();
  for (int64_t i = 0; i < n; i += kLanes)
    products = vfma(vmul(vloadRow(dy, i, n), vloadRow(weight, i, n)), vloadRow(x, i, n), products);
  const V along = vset(vsum(products) * factor * factor / (float)n), f = vset(factor);
  for (int64_t i = 0; i < n; i += kLanes) {
    const V d = vmul(vloadRow(dy, i, n), vloadRow(weight, i, n));
    vstoreSum(dx, vmul(vfnma(vloadRow(x, i, n), along, d), f), add, i, n);
  }
}

static void layerNormGrad(float* dx, const float* dy, const float* x, const float* weight, float eps, bool add,
                          int64_t n) {
  V sum = vzero(), squares = vzero(), level = vzero(), products = vzero();
  for (int64_t i = 0; i < n; i += kLanes) sum = vadd(sum, vloadRow(x, i, n));
  const V mean = vset(vsum(sum) / (float)n);
  for (int64_t i = 0; i < n; i += kLanes) {
    V centred = vsub(vloadRow(x, i, n), mean);
    if (n - i < kLanes) centred = vfirst(centred, vzero(), n - i);
    const V d = vmul(vloadRow(dy, i, n), vloadRow(weight, i, n));
    squares = vfma(centred, centred, squares);
    level = vadd(level, d);
    products = vfma(d, centred, products);
  }
  const float factor = 1.0f / sqrtf(vsum(squares) / (float)n + eps);
  const V f = vset(factor), away = vset(vsum(level) / (float)n);
  const V along = vset(vsum(products) * factor * factor / (float)n);
  for (int64_t i = 0; i < n; i += kLanes) {
    const V d = vsub(vmul(vloadRow(dy, i, n), vloadRow(weight, i, n)), away);
    vstoreSum(dx, vmul(vfnma(vsub(vloadRow(x, i, n), mean), along, d), f), add, i, n);
  }
}

// As vgelu, x s(x) with a logistic s = 1 / (1 + e): s', which is s^2 e, times x and s together
PG_INLINE V vgeluSlope(V x) {
  const V square = vmul(x, x);
  const V u = vmul(x, vfma(square, vset(-2 * 0.7978845608f * 0.044715f), vset(-2 * 0.7978845608f)));
  const V s = vdiv(vset(1), vadd(vset(1), vexp(u)));
  const V slope = vfma(square, vset(2 * 0.7978845608f * 3 * 0.044715f), vset(2 * 0.7978845608f));
  return vfma(vmul(vmul(x, slope), vsub(vset(1), s)), s, s);
}

static void geluGrad(float* d, const float* x, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) vstoreRow(d, vmul(vloadRow(d, i, n), vgeluSlope(vloadRow(x, i, n))), i, n);
}

static void geluMulGrad(float* gate, float* up, const float* d, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const V g = vloadRow(gate, i, n), u = vloadRow(up, i, n), dout = vloadRow(d, i, n);
    vstoreRow(gate, vmul(vmul(dout, u), vgeluSlope(g)), i, n);
    vstoreRow(up, vmul(dout, vgelu(g)), i, n);
  }
}

static void softmaxGrad(float* d, const float* p, const float* x, float mean, float factor, float cap, int64_t n) {
  const V inverse = vset(cap > 0 ? factor / cap : 0);
  for (int64_t i = 0; i < n; i += kLanes) {
    const V t = cap > 0 ? vtanh(vmul(vloadRow(x, i, n), inverse)) : vzero();
    const V slope = vmul(vset(factor), vfnma(t, t, vset(1)));
    vstoreRow(d, vmul(vmul(vloadRow(p, i, n), vsub(vloadRow(d, i, n), vset(mean))), slope), i, n);
  }
}

// In parts: the sum of a whole vocabulary would lose digits.
constexpr int64_t kSumPart = 4096;

static float logSumExp(const float* x, int64_t n) {
  const float top = max(x, n);
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kSumPart) {
    const int64_t end = n - begin < kSumPart ? n : begin + kSumPart;
    V sum = vzero();
    for (int64_t i = begin; i < end; i += kLanes) {
      const V e = vexp(vsub(vloadRow(x, i, end), vset(top)));
      sum = vadd(sum, end - i < kLanes ? vfirst(e, vzero(), end - i) : e);
    }
    total += (double)vsum(sum);
  }
  return (float)((double)top + log(total));
}

static void logSumExpGrad(float* z, float sum, float factor, float cap, int64_t n) {
  const V inverse = vset(cap > 0 ? 1 / cap : 0);
  for (int64_t i = 0; i < n; i += kLanes) {
    const V x = vloadRow(z, i, n), t = vmul(x, inverse);
    vstoreRow(z, vmul(vmul(vexp(vsub(x, vset(sum))), vset(factor)), vfnma(t, t, vset(1))), i, n);
  }
}
