// Attention's tiles in 16-bit integers, in the vector words of simd_*.h: twice as many multiplications an instruction
// as in f32, and with a scale for every row an error of about a ten-thousandth. Sums are exact and a row's scales are
// its own, so that a row of queries gives the same bits in any company. Static functions only.
#pragma once
#define PG_ATTENTION16

constexpr int kPairs16 = 4;                            // pairs of columns that an inner loop takes at a time
constexpr int kVectors16 = pg::kTileGroup / kLanes;    // of a row of scores

PG_INLINE int64_t roundTo(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// A row as integers of at most `level`, zeros behind its end up to a multiple of 2 * kLanes; returns its scale.
template <pg::DType kType>
PG_INLINE float levels16(const uint8_t* row, int64_t n, int level, int16_t* to) {
  V v[pg::kRow16 / kLanes], top = vzero();
  const int64_t vectors = roundTo(n, kLanes) / kLanes;
  for (int64_t i = 0; i < vectors; ++i) {
    v[i] = vloadWeights(kType, row, i * kLanes, n - i * kLanes);
    top = vmax(top, vabs(v[i]));
  }
  if (vectors % 2) v[vectors] = vzero();
  const float max = vmaxAcross(top);
  const V inverse = vset(max > 0 ? (float)level / max : 0);
  for (int64_t i = 0; i < roundTo(vectors, 2); ++i) vstoreI16(to + i * kLanes, vmul(v[i], inverse));
  return max / (float)level;
}

// The same for one of `count` rows; one behind them is all zeros.
template <pg::DType kType>
PG_INLINE float levels16OrNone(const uint8_t* x, size_t stride, int64_t row, int64_t count, int64_t n, int level,
                               int16_t* to) {
  if (row < count) return levels16<kType>(x + stride * size_t(row), n, level, to);
  memset(to, 0, size_t(roundTo(n, 2 * kLanes)) * sizeof *to);
  return 0;
}

static void packQueries16(const float* x, int64_t n, int level, int16_t* to, float* scale) {
  *scale = levels16<pg::DType::f32>((const uint8_t*)x, n, level, to);
}

template <pg::DType kType>
static void packKeysOf(const uint8_t* x, size_t stride, int64_t count, int64_t n, int level, int16_t* panels,
                       float* scales) {
  const int64_t pairs = roundTo(n, kPairs16 * 2) / 2;
  int16_t rows[kLanes][pg::kRow16];
  for (int64_t key = 0; key < pg::kTileGroup; key += kLanes) {
    for (int64_t i = 0; i < kLanes; ++i)
      scales[key + i] = levels16OrNone<kType>(x, stride, key + i, count, n, level, rows[i]);
    float* panel = (float*)panels + key / kTileRows * pairs * kTileRows + key % kTileRows;  // pairs travel as floats
    for (int64_t c = 0; c < pairs; c += kLanes) {
      V v[kLanes];
      for (int i = 0; i < kLanes; ++i) v[i] = vload((const float*)rows[i] + c);
      vtranspose(v);
      for (int64_t i = 0; i < kLanes && c + i < pairs; ++i) vstore(panel + (c + i) * kTileRows, v[i]);
    }
  }
}

template <pg::DType kType>
static void packValuesOf(const uint8_t* x, size_t stride, int64_t count, int64_t n, int16_t* panels, float* scales) {
  int16_t rows[2][pg::kRow16];
  const int64_t cols = roundTo(n, 16);
  for (int64_t key = 0; key < pg::kTileGroup; key += 2) {
    for (int64_t i = 0; i < 2; ++i)
      scales[key + i] = levels16OrNone<kType>(x, stride, key + i, count, n, pg::kValueLevel, rows[i]);
    for (int64_t c = 0; c < cols; c += kLanes) {
      const int64_t panel = c / kTileRows * kTileRows, width = cols - panel < kTileRows ? 16 : kTileRows;
      vstorePairs(panels + panel * pg::kTileGroup + key * width + 2 * (c - panel), rows[0] + c, rows[1] + c);
    }
  }
}

static void packKeys16(pg::DType type, const uint8_t* x, size_t stride, int64_t count, int64_t n, int level,
                       int16_t* panels, float* scales) {
  switch (type) {
    case pg::DType::f32: return packKeysOf<pg::DType::f32>(x, stride, count, n, level, panels, scales);
    case pg::DType::f16: return packKeysOf<pg::DType::f16>(x, stride, count, n, level, panels, scales);
    case pg::DType::bf16: return packKeysOf<pg::DType::bf16>(x, stride, count, n, level, panels, scales);
    default: return packKeysOf<pg::DType::q8_0>(x, stride, count, n, level, panels, scales);
  }
}

static void packValues16(pg::DType type, const uint8_t* x, size_t stride, int64_t count, int64_t n, int16_t* panels,
                         float* scales) {
  switch (type) {
    case pg::DType::f32: return packValuesOf<pg::DType::f32>(x, stride, count, n, panels, scales);
    case pg::DType::f16: return packValuesOf<pg::DType::f16>(x, stride, count, n, panels, scales);
    case pg::DType::bf16: return packValuesOf<pg::DType::bf16>(x, stride, count, n, panels, scales);
    default: return packValuesOf<pg::DType::q8_0>(x, stride, count, n, panels, scales);
  }
}

// acc[t][i] = products of a panel [pairs][kVectors * kLanes][2] with kTileTokens rows of integers, kStride apart
template <int kVectors, int kStride>
PG_INLINE void multiply16(I (*acc)[kVectors], const int16_t* panel, const int16_t* rows, int64_t pairs) {
  PG_UNROLL
  for (int t = 0; t < kTileTokens; ++t) PG_UNROLL
  for (int i = 0; i < kVectors; ++i) acc[t][i] = vzeroI();
  for (int64_t p = 0; p < pairs; p += kPairs16) PG_UNROLL
  for (int s = 0; s < kPairs16; ++s, panel += kVectors * kLanes * 2, rows += 2) {
    I w[kVectors];
    PG_UNROLL
    for (int i = 0; i < kVectors; ++i) w[i] = vloadI(panel + i * kLanes * 2);
    PG_UNROLL
    for (int t = 0; t < kTileTokens; ++t) vmultiplyAdd16<kVectors>(acc[t], w, rows + t * kStride);
  }
}

static void scores16(float* out, const int16_t* queries, const float* queryScales, const int16_t* keys,
                     const float* keyScales, int64_t n) {
  const int64_t pairs = roundTo(n, kPairs16 * 2) / 2;
  for (int64_t key = 0; key < pg::kTileGroup; key += kTileRows) {
    I acc[kTileTokens][kTileVectors];
    multiply16<kTileVectors, pg::kRow16>(acc, keys + key * pairs * 2, queries, pairs);
    PG_UNROLL
    for (int t = 0; t < kTileTokens; ++t) PG_UNROLL
    for (int i = 0; i < kTileVectors; ++i)
      vstore(out + t * pg::kTileGroup + key + i * kLanes,
             vmul(vmul(vtoF32(acc[t][i]), vload(keyScales + key + i * kLanes)), vset(queryScales[t])));
  }
}

// 2^x for x <= 0 with a relative error of 2.6e-6, a tenth of a level's; what is below 2^-126 becomes that.
PG_INLINE V vexp2Level(V x) {
  const V clamped = vmax(vset(-126), x), n = vround(clamped), f = vsub(clamped, n);
  V q = vfma(vset(9.5701022e-3f), f, vset(5.5917863e-2f));
  q = vfma(q, f, vset(2.4024744e-1f));
  q = vfma(q, f, vset(6.9312179e-1f));
  return vscale2(vfma(q, f, vset(9.9999928e-1f)), n);
}

// Exponents are those of 2: queries come with the factor log2(e).
static float softmax16(const float* scores, int64_t from, int64_t to, float cap, const float* valueScales, float* top,
                       float* sum, int16_t* p, float* weight) {
  V e[kVectors16], most = vset(-INFINITY);
  PG_UNROLL
  for (int i = 0; i < kVectors16; ++i) e[i] = vscore(vload(scores + i * kLanes), vset(1), cap * pg::kLog2E);
  if (from > 0 || to < pg::kTileGroup) {
    float seen[pg::kTileGroup];
    for (int i = 0; i < kVectors16; ++i) vstore(seen + i * kLanes, e[i]);
    for (int64_t i = 0; i < pg::kTileGroup; ++i)
      if (i < from || i >= to) seen[i] = -INFINITY;
    for (int i = 0; i < kVectors16; ++i) e[i] = vload(seen + i * kLanes);
  }
  PG_UNROLL
  for (int i = 0; i < kVectors16; ++i) most = vmax(e[i], most);
  const float tileTop = vmaxAcross(most), newTop = tileTop > *top ? tileTop : *top;
  V total = vzero();
  most = vzero();
  PG_UNROLL
  for (int i = 0; i < kVectors16; ++i) {
    e[i] = vexp2Level(vsub(e[i], vset(tileTop)));
    total = vadd(total, e[i]);
    e[i] = vmul(e[i], vload(valueScales + i * kLanes));
    most = vmax(most, e[i]);
  }
  const float largest = vmaxAcross(most);
  const V inverse = vset(largest > 0 ? pg::kProbabilityLevel / largest : 0);
  PG_UNROLL
  for (int i = 0; i < kVectors16; ++i) vstoreI16(p + i * kLanes, vmul(e[i], inverse));
  float factors[kLanes];  // of what was before, of this tile: one of them is 1
  vstore(factors, vexp(vmul(vsub(vfirst(vset(*top), vset(tileTop), 1), vset(newTop)), vset(1 / pg::kLog2E))));
  *top = newTop;
  *sum = *sum * factors[0] + vsum(total) * factors[1];
  *weight = factors[1] * largest / pg::kProbabilityLevel;
  return factors[0];
}

template <int kVectors>
PG_INLINE void mixPanel16(float* out, int64_t stride, const float* keep, const float* weights, const int16_t* p,
                          const int16_t* panel) {
  I acc[kTileTokens][kVectors];
  multiply16<kVectors, pg::kTileGroup>(acc, panel, p, pg::kTileGroup / 2);
  PG_UNROLL
  for (int t = 0; t < kTileTokens; ++t) PG_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    float* o = out + t * stride + i * kLanes;
    vstore(o, vfma(vtoF32(acc[t][i]), vset(weights[t]), vmul(vload(o), vset(keep[t]))));
  }
}

static void mix16(float* out, int64_t stride, const float* keep, const float* weights, const int16_t* p,
                  const int16_t* values, int64_t n) {
  int64_t c = 0;
  for (; c + kTileRows <= n; c += kTileRows)
    mixPanel16<kTileVectors>(out + c, stride, keep, weights, p, values + c * pg::kTileGroup);
  if (c < n) mixPanel16<16 / kLanes>(out + c, stride, keep, weights, p, values + c * pg::kTileGroup);
}
