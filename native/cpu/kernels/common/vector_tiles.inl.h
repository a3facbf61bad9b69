// Products of f32 tiles, packing for them, and rows of plain numbers, in the vector words of simd_*.h. The including
// file says kTileVectors (vectors a weight panel is wide) and kTileTokens. Static functions only.
#pragma once

constexpr int kTileRows = kTileVectors * kLanes;

// Between tokens, where the compiler would load for all of them at once and run out of registers.
#if !defined(PG_TOKEN_FENCE)
#define PG_TOKEN_FENCE
#endif

// kLanes values of a row of f32, f16, bf16 or q8_0 from column c on, of which n exist.
PG_INLINE V vloadWeights(pg::DType type, const uint8_t* row, int64_t c, int64_t n) {
  if (type == pg::DType::q8_0) {   // n is never cut short: blocks hold 32 values
    const uint8_t* block = row + c / pg::kBlock * pg::kBytesQ8_0;
    return vmul(vloadI8((const int8_t*)block + 2 + c % pg::kBlock), vset(vhalf(block)));
  }
  if (type == pg::DType::f32) return n >= kLanes ? vload((const float*)row + c) : vloadFirst((const float*)row + c, n);
  const uint16_t* half = (const uint16_t*)row + c;
  if (n >= kLanes) return type == pg::DType::f16 ? vloadF16(half) : vloadBf16(half);
  float few[kLanes] = {0};
  for (int64_t i = 0; i < n; ++i) few[i] = type == pg::DType::f16 ? pg::f16ToF32(half[i]) : pg::bf16ToF32(half[i]);
  return vload(few);
}

static void packRows(pg::DType type, const uint8_t* w, size_t stride, int64_t rows, int64_t column, int64_t k,
                     float* panel) {
  for (int64_t r = 0; r < kTileRows; r += kLanes)
    for (int64_t c = 0; c < k; c += kLanes) {
      V v[kLanes];
      for (int i = 0; i < kLanes; ++i)
        v[i] = r + i < rows ? vloadWeights(type, w + stride * size_t(r + i), column + c, k - c) : vzero();
      vtranspose(v);
      const int64_t n = k - c < kLanes ? k - c : kLanes;
      for (int64_t i = 0; i < n; ++i) vstore(panel + (c + i) * kTileRows + r, v[i]);
    }
}

static void packTokens(const float* x, int64_t stride, int64_t count, int64_t k, float* tokens) {
  for (int64_t t = 0; t < kTileTokens; t += kLanes) {
    const int64_t width = kTileTokens - t < kLanes ? kTileTokens - t : kLanes;
    for (int64_t c = 0; c < k; c += kLanes) {
      V v[kLanes];
      for (int i = 0; i < kLanes; ++i)
        v[i] = t + i >= count    ? vzero()
               : k - c >= kLanes ? vload(x + (t + i) * stride + c)
                                 : vloadFirst(x + (t + i) * stride + c, k - c);
      vtranspose(v);
      const int64_t n = k - c < kLanes ? k - c : kLanes;
      for (int64_t i = 0; i < n; ++i) vstoreFirst(tokens + (c + i) * kTileTokens + t, v[i], width);
    }
  }
}

#if !defined(PG_OWN_TILE)   // NEON has
static void tile(float* out, int64_t stride, const float* panel, const float* tokens, int64_t k, bool add) {
  V acc[kTileTokens][kTileVectors];
  PG_UNROLL
  for (int t = 0; t < kTileTokens; ++t) PG_UNROLL
  for (int i = 0; i < kTileVectors; ++i) acc[t][i] = vzero();
  for (int64_t c = 0; c < k; ++c) {
    V w[kTileVectors];
    PG_UNROLL
    for (int i = 0; i < kTileVectors; ++i) w[i] = vload(panel + c * kTileRows + i * kLanes);
    PG_UNROLL
    for (int t = 0; t < kTileTokens; ++t) {
      const V x = vset(tokens[c * kTileTokens + t]);
      PG_UNROLL
      for (int i = 0; i < kTileVectors; ++i) acc[t][i] = vfma(w[i], x, acc[t][i]);
    }
  }
  PG_UNROLL
  for (int t = 0; t < kTileTokens; ++t) PG_UNROLL
  for (int i = 0; i < kTileVectors; ++i) {
    float* o = out + t * stride + i * kLanes;
    vstore(o, add ? vadd(vload(o), acc[t][i]) : acc[t][i]);
  }
}
#endif

// kVectors vectors of columns for kTokens tokens
template <pg::DType kType, int kTokens, int kVectors>
PG_INLINE void mixColumns(float* out, int64_t stride, const float* keep, const float* p, const uint8_t* v,
                          size_t vStride, int64_t keys, int64_t column) {
  V acc[kTokens][kVectors];
  PG_UNROLL
  for (int t = 0; t < kTokens; ++t) PG_UNROLL
  for (int i = 0; i < kVectors; ++i) acc[t][i] = vmul(vload(out + t * stride + column + i * kLanes), vset(keep[t]));
  for (int64_t key = 0; key < keys; ++key) {
    V w[kVectors];
    PG_UNROLL
    for (int i = 0; i < kVectors; ++i)
      w[i] = vloadWeights(kType, v + size_t(key) * vStride, column + i * kLanes, kLanes);
    PG_UNROLL
    for (int t = 0; t < kTokens; ++t) {
      const V x = vset(p[t * pg::kTileGroup + key]);
      PG_UNROLL
      for (int i = 0; i < kVectors; ++i) acc[t][i] = vfma(w[i], x, acc[t][i]);
      PG_TOKEN_FENCE
    }
  }
  PG_UNROLL
  for (int t = 0; t < kTokens; ++t) PG_UNROLL
  for (int i = 0; i < kVectors; ++i) vstore(out + t * stride + column + i * kLanes, acc[t][i]);
}

template <pg::DType kType, int kTokens, int kVectors>
static void mixTokens(float* out, int64_t stride, const float* keep, const float* p, const uint8_t* v, size_t vStride,
                      int64_t keys, int64_t cols) {
  int64_t c = 0;
  for (; c + kVectors * kLanes <= cols; c += kVectors * kLanes)
    mixColumns<kType, kTokens, kVectors>(out, stride, keep, p, v, vStride, keys, c);
  for (; c < cols; c += kLanes) mixColumns<kType, kTokens, 1>(out, stride, keep, p, v, vStride, keys, c);
}

template <pg::DType kType>
PG_INLINE void mixFew(float* out, int64_t stride, const float* keep, const float* p, const uint8_t* v, size_t vStride,
                      int64_t keys, int64_t cols, int64_t tokens) {
  int64_t t = 0;
  for (; t + 2 <= tokens; t += 2)
    mixTokens<kType, 2, 4>(out + t * stride, stride, keep + t, p + t * pg::kTileGroup, v, vStride, keys, cols);
  if (t < tokens)
    mixTokens<kType, 1, 4>(out + t * stride, stride, keep + t, p + t * pg::kTileGroup, v, vStride, keys, cols);
}

static void mix(float* out, int64_t stride, const float* keep, const float* p, pg::DType type, const uint8_t* v,
                size_t vStride, int64_t keys, int64_t cols, int64_t tokens) {
  if (type == pg::DType::f16) mixFew<pg::DType::f16>(out, stride, keep, p, v, vStride, keys, cols, tokens);
  else if (type == pg::DType::q8_0) mixFew<pg::DType::q8_0>(out, stride, keep, p, v, vStride, keys, cols, tokens);
  else if (tokens == kTileTokens)
    mixTokens<pg::DType::f32, kTileTokens, kTileVectors>(out, stride, keep, p, v, vStride, keys, cols);
  else mixFew<pg::DType::f32>(out, stride, keep, p, v, vStride, keys, cols, tokens);
}

// One weight row with kTokens tokens; the order of additions does not depend on kTokens.
template <int kTokens>
PG_INLINE void dotRowTokens(pg::DType type, const uint8_t* row, int64_t k, const float* x, int64_t xStride, float* out,
                            int64_t outStride) {
  V a[kTokens], b[kTokens];
  for (int t = 0; t < kTokens; ++t) a[t] = b[t] = vzero();
  int64_t c = 0;
  for (; c + 2 * kLanes <= k; c += 2 * kLanes) {
    const V w0 = vloadWeights(type, row, c, kLanes), w1 = vloadWeights(type, row, c + kLanes, kLanes);
    vprefetch(row + c * (type == pg::DType::f32 ? 4 : 2) + 2048);
    if (type == pg::DType::f32 && kLanes == 16) vprefetch(row + c * 4 + 2112);
    for (int t = 0; t < kTokens; ++t) {
      a[t] = vfma(w0, vload(x + t * xStride + c), a[t]);
      b[t] = vfma(w1, vload(x + t * xStride + c + kLanes), b[t]);
    }
  }
  for (; c < k; c += kLanes) {
    const V w = vloadWeights(type, row, c, k - c);
    for (int t = 0; t < kTokens; ++t)
      a[t] = vfma(w, k - c >= kLanes ? vload(x + t * xStride + c) : vloadFirst(x + t * xStride + c, k - c), a[t]);
  }
  for (int t = 0; t < kTokens; ++t) out[t * outStride] = vsum(vadd(a[t], b[t]));
}

template <int kTokens>
PG_INLINE void dotRowAnyType(pg::DType type, const uint8_t* row, int64_t k, const float* x, int64_t xStride, float* out,
                             int64_t outStride) {
  if (type == pg::DType::f32) dotRowTokens<kTokens>(pg::DType::f32, row, k, x, xStride, out, outStride);
  else if (type == pg::DType::f16) dotRowTokens<kTokens>(pg::DType::f16, row, k, x, xStride, out, outStride);
  else if (type == pg::DType::q8_0) dotRowTokens<kTokens>(pg::DType::q8_0, row, k, x, xStride, out, outStride);
  else dotRowTokens<kTokens>(pg::DType::bf16, row, k, x, xStride, out, outStride);
}

static void dotRows(pg::DType type, const uint8_t* w, size_t stride, int64_t rows, int64_t k, const float* x,
                    int64_t xStride, int64_t count, float* out) {
  for (int64_t r = 0; r < rows; ++r) {
    const uint8_t* row = w + stride * size_t(r);
    int64_t t = 0;
    for (; t + 4 <= count; t += 4) dotRowAnyType<4>(type, row, k, x + t * xStride, xStride, out + t * rows + r, rows);
    for (; t + 2 <= count; t += 2) dotRowAnyType<2>(type, row, k, x + t * xStride, xStride, out + t * rows + r, rows);
    if (t < count) dotRowAnyType<1>(type, row, k, x + t * xStride, xStride, out + t * rows + r, rows);
  }
}
