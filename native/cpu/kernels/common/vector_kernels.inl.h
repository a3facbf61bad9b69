// Row kernels in the vector words of simd_*.h: written once, compiled by every kernel file. Static functions only.
//
// Errors, against double arithmetic: exp 2 ulp down to its underflow (results below 2^-126 become 0); tanh 3 ulp;
// gelu 4 ulp of max(|x|, 1e-30).
#pragma once

// exp(x). x below -87.33 gives 0, above 88.37 the largest value that the range reduction can make.
PG_INLINE V vexp(V x) {
  const V low = vset(-87.3365448f), clamped = vmin(vset(88.3762589f), vmax(low, x));  // in this order NaN stays NaN
  const V n = vround(vmul(clamped, vset(1.44269504f)));
  // ln 2 in two parts: the first has so few bits that n times it is exact
  V r = vfnma(n, vset(0.693359375f), clamped);
  r = vfnma(n, vset(-2.12194440e-4f), r);
  V q = vset(1.3814464909970760e-3f);
  q = vfma(q, r, vset(8.368780836462975e-3f));
  q = vfma(q, r, vset(4.166839271783829e-2f));
  q = vfma(q, r, vset(1.666651964187622e-1f));
  q = vfma(q, r, vset(4.999999403953552e-1f));
  const V e = vadd(vfma(vmul(r, r), q, r), vset(1));
  return vselectLess(x, low, vzero(), vscale2(e, n));
}

PG_INLINE V vtanh(V x) {
  const V a = vabs(x), u = vmul(x, x);
  V q = vset(-5.717036779969931e-3f);
  q = vfma(q, u, vset(2.0650578662753105e-2f));
  q = vfma(q, u, vset(-5.374349653720856e-2f));
  q = vfma(q, u, vset(1.3331490755081177e-1f));
  q = vfma(q, u, vset(-3.333328366279602e-1f));
  const V small = vfma(vmul(x, u), q, x);
  const V large = vsub(vset(1), vdiv(vset(2), vadd(vexp(vadd(a, a)), vset(1))));
  return vselectLess(a, vset(0.625f), small, vselectLess(x, vzero(), vsub(vzero(), large), large));
}

// gelu_tanh(x) = x * sigmoid(2 * sqrt(2 / pi) * (x + 0.044715 x^3)): no cancellation at either end
PG_INLINE V vgelu(V x) {
  const V u = vmul(x, vfma(vmul(x, x), vset(-2 * 0.7978845608f * 0.044715f), vset(-2 * 0.7978845608f)));
  return vdiv(x, vadd(vset(1), vexp(u)));
}

// Asks for the bytes that lie kPrefetchAhead behind these. Addresses, not pointers: they may lie behind the weights.
PG_INLINE void prefetchBlocks(const uint8_t* p, int bytes) {
  for (int i = 0; i < bytes; i += 64) vprefetch((const void*)((uintptr_t)p + pg::kPrefetchAhead + uintptr_t(i)));
}

static float dot(const float* a, const float* b, int64_t n) {
  V s0 = vzero(), s1 = vzero(), s2 = vzero(), s3 = vzero();
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    s0 = vfma(vload(a + i), vload(b + i), s0);
    s1 = vfma(vload(a + i + kLanes), vload(b + i + kLanes), s1);
    s2 = vfma(vload(a + i + 2 * kLanes), vload(b + i + 2 * kLanes), s2);
    s3 = vfma(vload(a + i + 3 * kLanes), vload(b + i + 3 * kLanes), s3);
  }
  for (; i + kLanes <= n; i += kLanes) s0 = vfma(vload(a + i), vload(b + i), s0);
  if (i < n) s1 = vfma(vloadFirst(a + i, n - i), vloadFirst(b + i, n - i), s1);
  return vsum(vadd(vadd(s0, s1), vadd(s2, s3)));
}

static void scale(float* y, float s, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) vstore(y + i, vmul(vload(y + i), vset(s)));
  if (i < n) vstoreFirst(y + i, vmul(vloadFirst(y + i, n - i), vset(s)), n - i);
}

static void add(float* y, const float* x, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) vstore(y + i, vadd(vload(y + i), vload(x + i)));
  if (i < n) vstoreFirst(y + i, vadd(vloadFirst(y + i, n - i), vloadFirst(x + i, n - i)), n - i);
}

static float max(const float* x, int64_t n) {
  V m = vset(-INFINITY);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) m = vmax(vload(x + i), m);
  if (i < n) m = vmax(vfirst(vloadFirst(x + i, n - i), vset(-INFINITY), n - i), m);
  return vmaxAcross(m);
}

static float expSum(float* x, float shift, int64_t n) {
  V sum = vzero();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const V e = vexp(vsub(vload(x + i), vset(shift)));
    vstore(x + i, e);
    sum = vadd(sum, e);
  }
  if (i < n) {
    const V e = vfirst(vexp(vsub(vloadFirst(x + i, n - i), vset(shift))), vzero(), n - i);
    vstoreFirst(x + i, e, n - i);
    sum = vadd(sum, e);
  }
  return vsum(sum);
}

static void softcap(float* x, float cap, int64_t n) {
  const V c = vset(cap), inverse = vset(1 / cap);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) vstore(x + i, vmul(c, vtanh(vmul(vload(x + i), inverse))));
  if (i < n) vstoreFirst(x + i, vmul(c, vtanh(vmul(vloadFirst(x + i, n - i), inverse))), n - i);
}

PG_INLINE V vscore(V x, V factor, float cap) {
  const V s = vmul(x, factor);
  return cap > 0 ? vmul(vset(cap), vtanh(vmul(s, vset(1 / cap)))) : s;
}

static float softmaxStep(float* x, float factor, float cap, float* top, float* sum, int64_t n) {
  const V f = vset(factor), none = vset(-INFINITY);
  V m = vset(*top);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const V s = vscore(vload(x + i), f, cap);
    vstore(x + i, s);
    m = vmax(m, s);
  }
  if (i < n) {
    const V s = vscore(vloadFirst(x + i, n - i), f, cap);
    vstoreFirst(x + i, s, n - i);
    m = vmax(m, vfirst(s, none, n - i));
  }
  const float newTop = vmaxAcross(m);
  float keep[kLanes];
  vstore(keep, vexp(vset(*top - newTop)));
  *sum = *sum * keep[0] + expSum(x, newTop, n);
  *top = newTop;
  return keep[0];
}

static void gelu(float* x, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) vstore(x + i, vgelu(vload(x + i)));
  if (i < n) vstoreFirst(x + i, vgelu(vloadFirst(x + i, n - i)), n - i);
}

static void geluMul(float* out, const float* gate, const float* up, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) vstore(out + i, vmul(vgelu(vload(gate + i)), vload(up + i)));
  if (i < n) vstoreFirst(out + i, vmul(vgelu(vloadFirst(gate + i, n - i)), vloadFirst(up + i, n - i)), n - i);
}

template <pg::Epilogue kKind>
PG_INLINE V vfinish(V y, V before, V second) {
  switch (kKind) {
    case pg::Epilogue::gelu: return vgelu(y);
    case pg::Epilogue::add: return vadd(before, y);
    case pg::Epilogue::geglu: return vmul(vgelu(y), second);
    default: return y;
  }
}

template <pg::Epilogue kKind>
static void finishRows(float* out, int64_t outStride, const pg::Sums& y, int64_t n, int64_t tokens) {
  const bool adds = kKind == pg::Epilogue::add, two = kKind == pg::Epilogue::geglu;
  for (int64_t t = 0; t < tokens; ++t, out += outStride) {
    const float *acc = y.acc + t * y.accStride, *second = two ? y.second + t * y.accStride : acc;
    int64_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      V a = vload(acc + i), b = two ? vload(second + i) : a;
      if (y.bias) a = vadd(a, vload(y.bias + i));
      if (two && y.secondBias) b = vadd(b, vload(y.secondBias + i));
      vstore(out + i, vfinish<kKind>(a, adds ? vload(out + i) : a, b));
    }
    if (i == n) continue;
    V a = vloadFirst(acc + i, n - i), b = two ? vloadFirst(second + i, n - i) : a;
    if (y.bias) a = vadd(a, vloadFirst(y.bias + i, n - i));
    if (two && y.secondBias) b = vadd(b, vloadFirst(y.secondBias + i, n - i));
    vstoreFirst(out + i, vfinish<kKind>(a, adds ? vloadFirst(out + i, n - i) : a, b), n - i);
  }
}

static void finish(pg::Epilogue kind, float* out, int64_t outStride, const pg::Sums& y, int64_t n, int64_t tokens) {
  switch (kind) {
    case pg::Epilogue::store: return finishRows<pg::Epilogue::store>(out, outStride, y, n, tokens);
    case pg::Epilogue::gelu: return finishRows<pg::Epilogue::gelu>(out, outStride, y, n, tokens);
    case pg::Epilogue::add: return finishRows<pg::Epilogue::add>(out, outStride, y, n, tokens);
    case pg::Epilogue::geglu: return finishRows<pg::Epilogue::geglu>(out, outStride, y, n, tokens);
  }
}

static void rmsNorm(float* out, const float* x, const float* weight, float eps, bool addTo, int64_t n) {
  const V factor = vset(1.0f / sqrtf(dot(x, x, n) / (float)n + eps));
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const V y = vmul(vmul(vload(x + i), factor), vload(weight + i));
    vstore(out + i, addTo ? vadd(vload(out + i), y) : y);
  }
  if (i < n) {
    const V y = vmul(vmul(vloadFirst(x + i, n - i), factor), vloadFirst(weight + i, n - i));
    vstoreFirst(out + i, addTo ? vadd(vloadFirst(out + i, n - i), y) : y, n - i);
  }
}

static void layerNorm(float* out, const float* x, const float* weight, const float* bias, float eps, int64_t n) {
  V sum = vzero(), squares = vzero();
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) sum = vadd(sum, vload(x + i));
  if (i < n) sum = vadd(sum, vloadFirst(x + i, n - i));
  const V mean = vset(vsum(sum) / (float)n);
  for (i = 0; i + kLanes <= n; i += kLanes) {
    const V d = vsub(vload(x + i), mean);
    squares = vfma(d, d, squares);
  }
  if (i < n) {
    const V d = vfirst(vsub(vloadFirst(x + i, n - i), mean), vzero(), n - i);
    squares = vfma(d, d, squares);
  }
  const V factor = vset(1.0f / sqrtf(vsum(squares) / (float)n + eps));
  for (i = 0; i + kLanes <= n; i += kLanes)
    vstore(out + i, vfma(vmul(vsub(vload(x + i), mean), factor), vload(weight + i), vload(bias + i)));
  if (i < n) {
    const int64_t left = n - i;
    const V y = vfma(vmul(vsub(vloadFirst(x + i, left), mean), factor), vloadFirst(weight + i, left),
                     vloadFirst(bias + i, left));
    vstoreFirst(out + i, y, left);
  }
}

static void rope(float* x, const float* cosines, const float* sines, int64_t half) {
  int64_t i = 0;
  for (; i + kLanes <= half; i += kLanes) {
    const V a = vload(x + i), b = vload(x + half + i), c = vload(cosines + i), s = vload(sines + i);
    vstore(x + i, vsub(vmul(a, c), vmul(b, s)));
    vstore(x + half + i, vadd(vmul(b, c), vmul(a, s)));
  }
  for (; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    x[i] = a * cosines[i] - b * sines[i];
    x[i + half] = b * cosines[i] + a * sines[i];
  }
}

static void f16ToF32Row(const uint16_t* src, float* dst, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) vstore(dst + i, vloadF16(src + i));
  for (; i < n; ++i) dst[i] = pg::f16ToF32(src[i]);
}

static void bf16ToF32Row(const uint16_t* src, float* dst, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) vstore(dst + i, vloadBf16(src + i));
  for (; i < n; ++i) dst[i] = pg::bf16ToF32(src[i]);
}

static void q8ToF32Row(const pg::BlockQ8_0* b, float* dst, int64_t n) {
  for (; n > 0; n -= 32, dst += 32, ++b) {
    const V d = vset(pg::f16ToF32(b->d));
    for (int i = 0; i < 32; i += kLanes) vstore(dst + i, vmul(vloadI8(b->qs + i), d));
  }
}

static void q4ToF32Row(const pg::BlockQ4_0* b, float* dst, int64_t n) {
  for (; n > 0; n -= 32, dst += 32, ++b) {
    const V d = vset(pg::f16ToF32(b->d)), eight = vset(8);
    for (int i = 0; i < 16; i += kLanes) {
      vstore(dst + i, vmul(vsub(vloadBits(b->qs + i, 0, 15), eight), d));
      vstore(dst + 16 + i, vmul(vsub(vloadBits(b->qs + i, 4, 15), eight), d));
    }
  }
}

// Q4_K, and Q5_K with its fifth bits
template <class Block>
static void q45KToF32Row(const Block* b, const uint8_t* fives, float* dst, int64_t n) {
  for (; n > 0; n -= 256, ++b, fives = fives ? fives + sizeof(Block) : nullptr) {
    const float d = pg::f16ToF32(b->d), dmin = pg::f16ToF32(b->dmin);
    for (int g = 0; g < 8; ++g, dst += 32) {
      int scale, min;
      pg::unpackScaleMin(b->scales, g, scale, min);
      const V slope = vset(d * (float)scale), base = vset(dmin * (float)min);
      for (int i = 0; i < 32; i += kLanes) {
        V level = vloadBits(b->qs + 32 * (g / 2) + i, g % 2 * 4, 15);
        if (fives) level = vfma(vloadBits(fives + i, g, 1), vset(16), level);
        vstore(dst + i, vsub(vmul(slope, level), base));
      }
    }
  }
}

static void q6KToF32Row(const pg::BlockQ6K* b, float* dst, int64_t n) {
  for (; n > 0; n -= 256, ++b) {
    const float d = pg::f16ToF32(b->d);
    for (int g = 0; g < 16; ++g, dst += 16) {
      const int half = g / 8, quarter = g % 8 / 2, first = 16 * (g % 2);
      const uint8_t* low = b->ql + 64 * half + 32 * (quarter % 2) + first;
      const uint8_t* high = b->qh + 32 * half + first;
      const V scale = vset(d * (float)b->scales[g]);
      for (int i = 0; i < 16; i += kLanes) {
        const V level = vfma(vloadBits(high + i, 2 * quarter, 3), vset(16), vloadBits(low + i, quarter / 2 * 4, 15));
        vstore(dst + i, vmul(scale, vsub(level, vset(32))));
      }
    }
  }
}

static void toF32(pg::DType type, const void* src, float* dst, int64_t n) {
  switch (type) {
    case pg::DType::f32: memcpy(dst, src, size_t(n) * sizeof(float)); break;
    case pg::DType::f16: f16ToF32Row((const uint16_t*)src, dst, n); break;
    case pg::DType::bf16: bf16ToF32Row((const uint16_t*)src, dst, n); break;
    case pg::DType::q8_0: q8ToF32Row((const pg::BlockQ8_0*)src, dst, n); break;
    case pg::DType::q4_0: q4ToF32Row((const pg::BlockQ4_0*)src, dst, n); break;
    case pg::DType::q4_k: q45KToF32Row((const pg::BlockQ4K*)src, nullptr, dst, n); break;
    case pg::DType::q5_k: q45KToF32Row((const pg::BlockQ5K*)src, ((const pg::BlockQ5K*)src)->qh, dst, n); break;
    case pg::DType::q6_k: q6KToF32Row((const pg::BlockQ6K*)src, dst, n); break;
    default: pg::kKernelsScalar.toF32(type, src, dst, n);
  }
}

static void fromF32(pg::DType type, const float* src, void* dst, int64_t n) {
  if (type != pg::DType::f16) return pg::kKernelsScalar.fromF32(type, src, dst, n);
  uint16_t* out = (uint16_t*)dst;
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) vstoreF16(out + i, vload(src + i));
  for (; i < n; ++i) out[i] = pg::f32ToF16(src[i]);
}
