// 8-bit tiles in NEON: 8 weight rows x 12 tokens, signed bytes on both sides, one scale per 64 columns. With i8mm
// (PG_NEON_I8MM) pairs of rows meet pairs of tokens, eight columns at a time; with dotprod (PG_NEON_DOT) four columns
// of four rows meet a token. Plain NEON multiplies eight columns of a row and a token to 16 bits, adds eight more
// (2 * 127 * 128 fits) and the pairs to 32 bits: on a Cortex-A72 the multiplier takes eight products a cycle this way
// and the other pipe adds, while fmla does four.
//
// gcc 12, left alone, unrolls loops over columns, loads early and moves the f32 tile into registers, more than there
// are: hence PG_ROLLED and PG_FENCE.
#pragma once

#if defined(PG_NEON_I8MM)
constexpr int kStep = 8;   // columns of a row or token that lie together
#elif defined(PG_NEON_DOT)
constexpr int kStep = 4;
#else
constexpr int kStep = 16;
#endif

// Up to 64 numbers as bytes of one scale, which is returned; zeros behind the end.
PG_INLINE float levels(const float* x, int64_t n, int8_t* to) {
  float few[64];
  if (n < 64) {
    memset(few, 0, sizeof few);
    x = (const float*)memcpy(few, x, size_t(n) * sizeof(float));
  }
  V v[16];
  PG_UNROLL
  for (int i = 0; i < 16; ++i) v[i] = vload(x + 4 * i);
  const float max = largest<16>(v);
  const V inverse = vset(max > 0 ? 127 / max : 0);
  PG_UNROLL
  for (int i = 0; i < 4; ++i) vst1q_s8(to + 16 * i, roundTo8(v + 4 * i, inverse));
  return max / 127;
}

// 64 bytes of kItems rows or tokens, `stride` apart, to [64 / kStep][kItems][kStep]
template <int kItems>
PG_INLINE void interleave(const int8_t* from, int64_t stride, uint8_t* to) {
  for (int s = 0; s < 64; s += 16) PG_UNROLL
  for (int i = 0; i < kItems; i += 4) {
    V v[4];
    PG_UNROLL
    for (int j = 0; j < 4; ++j) v[j] = vreinterpretq_f32_s8(vld1q_s8(from + (i + j) * stride + s));
    if (kStep == 4) vtranspose(v);
    if (kStep == 8) PG_UNROLL
    for (int j = 0; j < 4; j += 2) {
      const float64x2_t a = vreinterpretq_f64_f32(v[j]), b = vreinterpretq_f64_f32(v[j + 1]);
      v[j] = vreinterpretq_f32_f64(vzip1q_f64(a, b));
      v[j + 1] = vreinterpretq_f32_f64(vzip2q_f64(a, b));
    }
    PG_UNROLL
    for (int j = 0; j < 4; ++j) {
      const int column = kStep == 4 ? 4 * j : kStep == 8 ? 8 * (j % 2) : 0;
      const int item = kStep == 4 ? 0 : kStep == 8 ? j / 2 * 2 : j;
      vst1q_u8(to + (s + column) * kItems + (i + item) * kStep, vreinterpretq_u8_f32(v[j]));
    }
  }
}

static void packTokens8(const float* x, int64_t stride, int64_t count, int64_t k, uint8_t* tokens, float* scales,
                        int32_t* offsets) {
  (void)offsets;   // of unsigned weights: there are none here
  for (int64_t c = 0; c < k; c += 64, tokens += 64 * kTileTokens, scales += kTileTokens) {
    int8_t bytes[kTileTokens][64];
    for (int64_t t = 0; t < kTileTokens; ++t) {
      scales[t] = t < count ? levels(x + t * stride + c, k - c, bytes[t]) : 0;
      if (t >= count) memset(bytes[t], 0, 64);
    }
    interleave<kTileTokens>(bytes[0], 64, tokens);
  }
}

// Sums of 64 products are below 2^22 in size: started at the bits of 1.5 * 2^23 they are the low bits of a float, and
// one subtraction makes them f32. scvtf takes four times as long on a Cortex-A76.
PG_INLINE int32x4_t sumStart() { return vreinterpretq_s32_f32(vset(12582912)); }
PG_INLINE V sumValue(int32x4_t sum) { return vsub(vreinterpretq_f32_s32(sum), vset(12582912)); }

#if defined(PG_NEON_I8MM)
static void tile8(float* out, const uint8_t* panel, const float* rowScales, const uint8_t* tokens,
                  const float* tokenScales, const int32_t* offsets, int64_t groups) {
  (void)offsets;
  V total[4][6];   // lanes: rows 2p, 2p + 1 x tokens 2q, 2q + 1
  for (int p = 0; p < 4; ++p)
    for (int q = 0; q < 6; ++q) total[p][q] = vzero();
  for (; groups > 0; --groups, rowScales += 8, tokenScales += 12) {
    int32x4_t acc[4][6];
    PG_UNROLL
    for (int p = 0; p < 4; ++p) PG_UNROLL
    for (int q = 0; q < 6; ++q) acc[p][q] = sumStart();
    PG_ROLLED
    for (int s = 0; s < 8; ++s, panel += 64, tokens += 96) {
      int8x16_t w[4];
      PG_UNROLL
      for (int p = 0; p < 4; ++p) w[p] = vld1q_s8((const int8_t*)panel + 16 * p);
      PG_UNROLL
      for (int q = 0; q < 6; ++q) {
        const int8x16_t x = vld1q_s8((const int8_t*)tokens + 16 * q);
        PG_UNROLL
        for (int p = 0; p < 4; ++p) acc[p][q] = vmmlaq_s32(acc[p][q], w[p], x);
        PG_FENCE
      }
    }
    const V r0 = vload(rowScales), r1 = vload(rowScales + 4);
    const V rows[4] = {vzip1q_f32(r0, r0), vzip2q_f32(r0, r0), vzip1q_f32(r1, r1), vzip2q_f32(r1, r1)};
    PG_UNROLL
    for (int q = 0; q < 6; ++q) {
      const V xs = vreinterpretq_f32_f64(vld1q_dup_f64((const double*)(tokenScales + 2 * q)));
      PG_UNROLL
      for (int p = 0; p < 4; ++p) total[p][q] = vfma(vmul(rows[p], xs), sumValue(acc[p][q]), total[p][q]);
    }
    PG_FENCE
  }
  for (int q = 0; q < 6; ++q)
    for (int p = 0; p < 4; p += 2)
      for (int odd = 0; odd < 2; ++odd) {
        float* o = out + (2 * q + odd) * 8 + 2 * p;
        vstore(o, vadd(vload(o),
                       odd ? vuzp2q_f32(total[p][q], total[p + 1][q]) : vuzp1q_f32(total[p][q], total[p + 1][q])));
      }
}
#elif defined(PG_NEON_DOT)
// Tokens t .. t + 3 with four columns
#define PG_FOUR(t)                                               \
  {                                                              \
    const int8x16_t x = vld1q_s8((const int8_t*)tokens + 4 * t); \
    acc[t][0] = vdotq_laneq_s32(acc[t][0], a, x, 0);             \
    acc[t][1] = vdotq_laneq_s32(acc[t][1], b, x, 0);             \
    acc[t + 1][0] = vdotq_laneq_s32(acc[t + 1][0], a, x, 1);     \
    acc[t + 1][1] = vdotq_laneq_s32(acc[t + 1][1], b, x, 1);     \
    acc[t + 2][0] = vdotq_laneq_s32(acc[t + 2][0], a, x, 2);     \
    acc[t + 2][1] = vdotq_laneq_s32(acc[t + 2][1], b, x, 2);     \
    acc[t + 3][0] = vdotq_laneq_s32(acc[t + 3][0], a, x, 3);     \
    acc[t + 3][1] = vdotq_laneq_s32(acc[t + 3][1], b, x, 3);     \
  }

static void tile8(float* out, const uint8_t* panel, const float* rowScales, const uint8_t* tokens,
                  const float* tokenScales, const int32_t* offsets, int64_t groups) {
  (void)offsets;
  for (; groups > 0; --groups, rowScales += 8, tokenScales += 12) {
    int32x4_t acc[12][2];
    PG_UNROLL
    for (int t = 0; t < 12; ++t) acc[t][0] = acc[t][1] = sumStart();
    PG_ROLLED
    for (int s = 0; s < 16; ++s, panel += 32, tokens += 48) {
      const int8x16_t a = vld1q_s8((const int8_t*)panel), b = vld1q_s8((const int8_t*)panel + 16);
      PG_FOUR(0)
      PG_FOUR(4)
      PG_FOUR(8)
    }
    const V low = vload(rowScales), high = vload(rowScales + 4);
    PG_UNROLL
    for (int t = 0; t < 12; ++t) {
      const V xs = vset(tokenScales[t]);
      float* o = out + 8 * t;
      vstore(o, vfma(vmul(low, xs), sumValue(acc[t][0]), vload(o)));
      vstore(o + 4, vfma(vmul(high, xs), sumValue(acc[t][1]), vload(o + 4)));
    }
    PG_FENCE
  }
}
#else
// Four rows with four tokens: their sums stay in registers.
PG_INLINE void tile4x4(float* out, const int8_t* panel, V rowScales, const int8_t* tokens, const float* tokenScales) {
  int32x4_t acc[4][4];   // [token][row]: four partial sums
  PG_UNROLL
  for (int i = 0; i < 16; ++i) acc[i / 4][i % 4] = vdupq_n_s32(0);
  PG_ROLLED
  for (int s = 0; s < 4; ++s, panel += 16 * kTileRows, tokens += 16 * kTileTokens) {
    int8x16_t w[4];
    PG_UNROLL
    for (int r = 0; r < 4; ++r) w[r] = vld1q_s8(panel + 16 * r);
    PG_UNROLL
    for (int t = 0; t < 4; ++t) {
      const int8x16_t x = vld1q_s8(tokens + 16 * t);
      PG_UNROLL
      for (int r = 0; r < 4; ++r)
        acc[t][r] = vpadalq_s16(acc[t][r], vmlal_high_s8(vmull_s8(vget_low_s8(w[r]), vget_low_s8(x)), w[r], x));
      PG_FENCE
    }
  }
  PG_UNROLL
  for (int t = 0; t < 4; ++t) {
    const int32x4_t sums = vpaddq_s32(vpaddq_s32(acc[t][0], acc[t][1]), vpaddq_s32(acc[t][2], acc[t][3]));
    vstore(out + kTileRows * t,
           vfma(vmul(rowScales, vset(tokenScales[t])), vcvtq_f32_s32(sums), vload(out + kTileRows * t)));
  }
}

static void tile8(float* out, const uint8_t* panel, const float* rowScales, const uint8_t* tokens,
                  const float* tokenScales, const int32_t* offsets, int64_t groups) {
  (void)offsets;
  for (; groups > 0; --groups, panel += 64 * kTileRows, tokens += 64 * kTileTokens, rowScales += kTileRows,
                     tokenScales += kTileTokens)
    for (int r = 0; r < kTileRows; r += 4)
      for (int t = 0; t < kTileTokens; t += 4)
        tile4x4(out + kTileRows * t + r, (const int8_t*)panel + 16 * r, vload(rowScales + r),
                (const int8_t*)tokens + 16 * t, tokenScales + t);
}
#endif
