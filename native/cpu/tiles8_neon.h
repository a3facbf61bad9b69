// 8-bit tiles in NEON: 8 weight rows x 12 tokens, signed bytes on both sides. With i8mm (PG_NEON_I8MM) pairs of rows
// meet pairs of tokens, eight columns at a time; with dotprod four columns of four rows meet a token. Plain NEON has
// neither: there, multiplying 8-bit numbers takes as many instructions as multiplying f32, so it uses the f32 tile.
#pragma once

#if defined(PG_NEON_I8MM)
constexpr int kStep = 8;   // columns of a row or token that lie together
#else
constexpr int kStep = 4;
#endif

// Up to 64 numbers as bytes of one scale, which is returned; zeros behind the end.
PG_INLINE float levels(const float* x, int64_t n, int8_t* to) {
  float few[64];
  if (n < 64) {
    memset(few, 0, sizeof few);
    memcpy(few, x, size_t(n) * sizeof(float));
    x = few;
  }
  V top = vzero();
  for (int i = 0; i < 64; i += 4) top = vmaxnmq_f32(top, vabs(vload(x + i)));
  const float max = vmaxAcross(top);
  const V inverse = vset(max > 0 ? 127 / max : 0);
  for (int i = 0; i < 64; i += 8) {
    const int16x4_t a = vqmovn_s32(vcvtnq_s32_f32(vmul(vload(x + i), inverse)));
    const int16x4_t b = vqmovn_s32(vcvtnq_s32_f32(vmul(vload(x + i + 4), inverse)));
    vst1_s8(to + i, vqmovn_s16(vcombine_s16(a, b)));
  }
  return max / 127;
}

// Places a group's 64 bytes of item i of `items`: [64 / kStep][items][kStep].
PG_INLINE void scatter(const int8_t* bytes, uint8_t* to, int64_t items, int64_t i) {
  for (int s = 0; s < 64 / kStep; ++s) memcpy(to + (s * items + i) * kStep, bytes + s * kStep, kStep);
}

static void packTokens8(const float* x, int64_t stride, int64_t count, int64_t k, uint8_t* tokens, float* scales, int32_t* offsets) {
  (void)offsets;   // of unsigned weights: there are none here
  for (int64_t c = 0; c < k; c += 64, tokens += 64 * kTileTokens, scales += kTileTokens)
    for (int64_t t = 0; t < kTileTokens; ++t) {
      int8_t bytes[64] = {0};
      scales[t] = t < count ? levels(x + t * stride + c, k - c < 64 ? k - c : 64, bytes) : 0;
      scatter(bytes, tokens, kTileTokens, t);
    }
}

// The scalar decoders feed every type; their loops are simple enough for the compiler to vectorize.
static bool hasTile8(pg::DType type) {
  return type == pg::DType::q8_0 || type == pg::DType::q4_0 || type == pg::DType::q4_k || type == pg::DType::q5_k || type == pg::DType::q6_k;
}

PG_INLINE size_t offsetOf(pg::DType type, int64_t column) {
  switch (type) {
    case pg::DType::q8_0: return size_t(column / 32) * 34;
    case pg::DType::q4_0: return size_t(column / 32) * 18;
    case pg::DType::q4_k: return size_t(column / 256) * 144;
    case pg::DType::q5_k: return size_t(column / 256) * 176;
    case pg::DType::q6_k: return size_t(column / 256) * 210;
    default: return size_t(column) * sizeof(float);
  }
}

static void packRows8(pg::DType type, const uint8_t* w, size_t stride, int64_t rows, int64_t column, int64_t k, uint8_t* panel, float* scales) {
  for (int64_t c = 0; c < k; c += 256) {
    const int64_t n = k - c < 256 ? k - c : 256;
    for (int64_t r = 0; r < kTileRows; ++r) {
      float wide[256];
      const uint8_t* source = w + stride * size_t(r) + offsetOf(type, column + c);
      const float* x = type == pg::DType::f32 ? (const float*)source : wide;
      if (r < rows && type != pg::DType::f32) toF32(type, source, wide, n);
      for (int64_t g = 0; 64 * g < n; ++g) {
        int8_t bytes[64] = {0};
        const int64_t group = c / 64 + g;
        scales[group * kTileRows + r] = r < rows ? levels(x + 64 * g, n - 64 * g < 64 ? n - 64 * g : 64, bytes) : 0;
        scatter(bytes, panel + group * 64 * kTileRows, kTileRows, r);
      }
    }
  }
}

#if defined(PG_NEON_I8MM)
static void tile8(float* out, const uint8_t* panel, const float* rowScales, const uint8_t* tokens, const float* tokenScales,
                  const int32_t* offsets, int64_t groups) {
  (void)offsets;
  for (; groups > 0; --groups, rowScales += 8, tokenScales += 12) {
    int32x4_t acc[4][6];   // lanes: rows 2p, 2p + 1 x tokens 2q, 2q + 1
    PG_UNROLL
    for (int p = 0; p < 4; ++p)
      PG_UNROLL
      for (int q = 0; q < 6; ++q) acc[p][q] = vdupq_n_s32(0);
    for (int s = 0; s < 8; ++s, panel += 64, tokens += 96) {
      int8x16_t w[4];
      PG_UNROLL
      for (int p = 0; p < 4; ++p) w[p] = vld1q_s8((const int8_t*)panel + 16 * p);
      PG_UNROLL
      for (int q = 0; q < 6; ++q) {
        const int8x16_t x = vld1q_s8((const int8_t*)tokens + 16 * q);
        PG_UNROLL
        for (int p = 0; p < 4; ++p) acc[p][q] = vmmlaq_s32(acc[p][q], w[p], x);
      }
    }
    PG_UNROLL
    for (int q = 0; q < 6; ++q)
      PG_UNROLL
      for (int p = 0; p < 4; p += 2)
        for (int odd = 0; odd < 2; ++odd) {
          const int32x4_t sums = odd ? vuzp2q_s32(acc[p][q], acc[p + 1][q]) : vuzp1q_s32(acc[p][q], acc[p + 1][q]);
          float* o = out + (2 * q + odd) * 8 + 2 * p;
          vstore(o, vfma(vmul(vload(rowScales + 2 * p), vset(tokenScales[2 * q + odd])), vcvtq_f32_s32(sums), vload(o)));
        }
  }
}
#else
static void tile8(float* out, const uint8_t* panel, const float* rowScales, const uint8_t* tokens, const float* tokenScales,
                  const int32_t* offsets, int64_t groups) {
  (void)offsets;
  for (; groups > 0; --groups, rowScales += 8, tokenScales += 12) {
    int32x4_t acc[12][2];
    PG_UNROLL
    for (int t = 0; t < 12; ++t) acc[t][0] = acc[t][1] = vdupq_n_s32(0);
    for (int s = 0; s < 16; ++s, panel += 32, tokens += 48) {
      const int8x16_t a = vld1q_s8((const int8_t*)panel), b = vld1q_s8((const int8_t*)panel + 16);
      PG_UNROLL
      for (int t = 0; t < 12; t += 4) {
        const int8x16_t x = vld1q_s8((const int8_t*)tokens + 4 * t);
        acc[t][0] = vdotq_laneq_s32(acc[t][0], a, x, 0);
        acc[t][1] = vdotq_laneq_s32(acc[t][1], b, x, 0);
        acc[t + 1][0] = vdotq_laneq_s32(acc[t + 1][0], a, x, 1);
        acc[t + 1][1] = vdotq_laneq_s32(acc[t + 1][1], b, x, 1);
        acc[t + 2][0] = vdotq_laneq_s32(acc[t + 2][0], a, x, 2);
        acc[t + 2][1] = vdotq_laneq_s32(acc[t + 2][1], b, x, 2);
        acc[t + 3][0] = vdotq_laneq_s32(acc[t + 3][0], a, x, 3);
        acc[t + 3][1] = vdotq_laneq_s32(acc[t + 3][1], b, x, 3);
      }
    }
    PG_UNROLL
    for (int t = 0; t < 12; ++t)
      for (int i = 0; i < 2; ++i) {
        float* o = out + 8 * t + 4 * i;
        vstore(o, vfma(vmul(vload(rowScales + 4 * i), vset(tokenScales[t])), vcvtq_f32_s32(acc[t][i]), vload(o)));
      }
  }
}
#endif
