// Weights for the 8-bit tiles in NEON: 256 columns of a row as signed bytes with one scale per 64. A 4-bit type has 16
// levels per 32 columns, a 5-bit type 32, so their bytes are looked up. Included after tiles8_neon.h's levels().
#pragma once

PG_INLINE V vlevels(int first) {
  const float levels[4] = {(float)first, (float)first + 1, (float)first + 2, (float)first + 3};
  return vload(levels);
}

// Levels first .. first + 15, times slope, minus base, as bytes
PG_INLINE int8x16_t table16(int first, float slope, float base) {
  const V m = vset(slope), b = vset(-base);
  const int16x8_t low = roundTo16(vfma(vlevels(first), m, b), vfma(vlevels(first + 4), m, b));
  const int16x8_t high = roundTo16(vfma(vlevels(first + 8), m, b), vfma(vlevels(first + 12), m, b));
  return vqmovn_high_s16(vqmovn_s16(low), high);
}

PG_INLINE V inverseOf(float of, V v) {   // of / v, 0 for 0
  return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(vdiv(vset(of), v)), vceqzq_f32(v)));
}

static void unpackQ4_0(const uint8_t* b, int8_t* to, float* scales) {
  V d[2];
  eightScales<pg::kBytesQ4_0>(b, d);
  // sixteenths of the larger scale of each pair: its block is exact, and it decides the sign so that -8 fits a byte
  const V even = vuzp1q_f32(d[0], d[1]), odd = vuzp2q_f32(d[0], d[1]);
  const V larger = vbslq_f32(vcageq_f32(even, odd), even, odd), inverse = inverseOf(16, larger);
  vstore(scales, vmul(larger, vset(0.0625f)));
  float ratio[2][4];
  vstore(ratio[0], vmul(even, inverse));
  vstore(ratio[1], vmul(odd, inverse));
  for (int i = 0; i < 8; ++i, b += pg::kBytesQ4_0, to += 32) {
    const uint8x16_t q = vld1q_u8(b + 2);
    const int8x16_t table = table16(-8, ratio[i % 2][i / 2], 0);
    vst1q_s8(to, vqtbl1q_s8(table, lowNibbles(q)));
    vst1q_s8(to + 16, vqtbl1q_s8(table, highNibbles(q)));
  }
}

static void unpackQ8_0(const uint8_t* b, int8_t* to, float* scales) {
  V d[2];
  eightScales<pg::kBytesQ8_0>(b, d);
  const V even = vuzp1q_f32(d[0], d[1]), odd = vuzp2q_f32(d[0], d[1]), top = vmax(vabs(even), vabs(odd));
  vstore(scales, top);
  // a rounding product of 16 bits: the block with the larger scale keeps its values
  const V inverse = inverseOf(32768, top);
  int16_t ratio[2][4];
  vst1_s16(ratio[0], vqmovn_s32(vcvtnq_s32_f32(vmul(even, inverse))));
  vst1_s16(ratio[1], vqmovn_s32(vcvtnq_s32_f32(vmul(odd, inverse))));
  for (int i = 0; i < 8; ++i, b += pg::kBytesQ8_0) {
    const int16x8_t r = vdupq_n_s16(ratio[i % 2][i / 2]);
    for (int j = 0; j < 32; j += 16, to += 16) {
      const int8x16_t q = vld1q_s8((const int8_t*)b + 2 + j);
      const int16x8_t low = vqrdmulhq_s16(vmovl_s8(vget_low_s8(q)), r), high = vqrdmulhq_s16(vmovl_high_s8(q), r);
      vst1q_s8(to, vqmovn_high_s16(vqmovn_s16(low), high));
    }
  }
}

// Slopes and bases of a super-block's groups in units of each pair's byte scale; levels 0..top.
PG_INLINE void pairSlopes(const uint8_t* row, float top, float* slope, float* base, float* scales) {
  V m[2], b[2], reach[2];
  slopes(row, m, b);
  for (int i = 0; i < 2; ++i) reach[i] = vmax(vabs(b[i]), vabs(vsub(vmul(m[i], vset(top)), b[i])));
  const V pairs = vpmaxq_f32(reach[0], reach[1]), inverse = inverseOf(127, pairs);
  vstore(scales, vmul(pairs, vset(1.0f / 127)));
  const V by[2] = {vzip1q_f32(inverse, inverse), vzip2q_f32(inverse, inverse)};
  for (int i = 0; i < 2; ++i) {
    vstore(slope + 4 * i, vmul(m[i], by[i]));
    vstore(base + 4 * i, vmul(b[i], by[i]));
  }
}

template <int kHalf, bool kFive>
PG_INLINE void unpackHalfK(const uint8_t* b, int8_t* to, const float* slope, const float* base) {
  uint8x16_t index[8];
  nibblesK<kHalf, kFive>(b, index);
  for (int g = 0; g < 4; ++g) {
    const float m = slope[4 * kHalf + g], c = base[4 * kHalf + g];
    const int8x16x2_t table = {{table16(0, m, c), kFive ? table16(16, m, c) : vdupq_n_s8(0)}};
    for (int i = 0; i < 2; ++i)
      vst1q_s8(to + 128 * kHalf + 32 * g + 16 * i,
               kFive ? vqtbl2q_s8(table, index[2 * g + i]) : vqtbl1q_s8(table.val[0], index[2 * g + i]));
  }
}

template <bool kFive>
static void unpackQ45K(const uint8_t* b, int8_t* to, float* scales) {
  float slope[8], base[8];
  pairSlopes(b, kFive ? 31 : 15, slope, base, scales);
  unpackHalfK<0, kFive>(b, to, slope, base);
  unpackHalfK<1, kFive>(b, to, slope, base);
}

static void unpackQ6K(const uint8_t* b, int8_t* to, float* scales) {
  const int8x16_t s = vld1q_s8((const int8_t*)b + 192);
  // the largest of each four scales
  uint8x16_t most = vreinterpretq_u8_s8(vabsq_s8(s));
  most = vpmaxq_u8(most, most);
  most = vpmaxq_u8(most, most);
  const V top = vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vget_low_u8(most)))));
  vstore(scales, vmul(top, vset(vhalf(b + 208) * 32 / 127)));
  // bytes are q * scale * 127 / (32 * top): (4 q) times a factor of 16 bits with rounding
  float inverse[4];
  vstore(inverse, inverseOf(127.0f * 8192 / 32, top));
  int16_t factors[16];
  const int16x8_t wide[2] = {vmovl_s8(vget_low_s8(s)), vmovl_high_s8(s)};
  for (int i = 0; i < 4; ++i) {
    const V four = vcvtq_f32_s32(i % 2 ? vmovl_high_s16(wide[i / 2]) : vmovl_s16(vget_low_s16(wide[i / 2])));
    vst1_s16(factors + 4 * i, vqmovn_s32(vcvtnq_s32_f32(vmul(four, vset(inverse[i])))));
  }
  for (int h = 0; h < 2; ++h) {
    int8x16_t q[8];
    sixBitsK(b, h, q);
    PG_UNROLL
    for (int i = 0; i < 8; ++i, to += 16) {
      const int16x8_t f = vdupq_n_s16(factors[8 * h + i]);
      const int16x8_t low = vqrdmulhq_s16(vshll_n_s8(vget_low_s8(q[i]), 2), f),
                      high = vqrdmulhq_s16(vshll_high_n_s8(q[i], 2), f);
      vst1q_s8(to, vuzp1q_s8(vreinterpretq_s8_s16(low), vreinterpretq_s8_s16(high)));
    }
  }
}

// Up to 256 columns of one row.
static void unpackRow(pg::DType type, const uint8_t* row, int64_t column, int64_t k, int8_t* to, float* scales) {
  switch (type) {
    case pg::DType::q4_k: return unpackQ45K<false>(row + column / 256 * 144, to, scales);
    case pg::DType::q5_k: return unpackQ45K<true>(row + column / 256 * 176, to, scales);
    case pg::DType::q6_k: return unpackQ6K(row + column / 256 * 210, to, scales);
    case pg::DType::q8_0:
    case pg::DType::q4_0: {
      const size_t size = type == pg::DType::q8_0 ? 34 : 18;
      const uint8_t* blocks = row + size_t(column / 32) * size;
      uint8_t few[272] = {0};
      if (k < 256)
        blocks = (const uint8_t*)memcpy(few, blocks, size_t(k / 32) * size);   // blocks that do not exist are zeros
      return type == pg::DType::q8_0 ? unpackQ8_0(blocks, to, scales) : unpackQ4_0(blocks, to, scales);
    }
    default:
      for (int64_t g = 0; 64 * g < k; ++g)
        scales[g] = levels((const float*)row + column + 64 * g, k - 64 * g, to + 64 * g);
  }
}

static bool hasTile8(pg::DType type) {
  return type == pg::DType::q8_0 || type == pg::DType::q4_0 || type == pg::DType::q4_k || type == pg::DType::q5_k ||
         type == pg::DType::q6_k;
}

static void packRows8(pg::DType type, const uint8_t* w, size_t stride, int64_t rows, int64_t column, int64_t k,
                      uint8_t* panel, float* scales) {
  for (int64_t c = 0; c < k; c += 256) {
    const int64_t n = k - c < 256 ? k - c : 256, groups = (n + 63) / 64;
    int8_t bytes[kTileRows][256];
    for (int64_t r = 0; r < kTileRows; ++r) {
      float s[4] = {0};
      if (r < rows) unpackRow(type, w + stride * size_t(r), column + c, n, bytes[r], s);
      else memset(bytes[r], 0, 256);
      for (int64_t g = 0; g < groups; ++g) scales[(c / 64 + g) * kTileRows + r] = s[g];
    }
    for (int64_t g = 0; g < groups; ++g, panel += 64 * kTileRows) interleave<kTileRows>(bytes[0] + 64 * g, 256, panel);
  }
}

static void packColumns8(const float* x, int64_t stride, int64_t k, uint8_t* panel, float* scales) {
  float rows[kTileRows][64] = {{0}};
  int8_t bytes[kTileRows][64];
  for (int64_t i = 0; i < k; i += 4)
    for (int64_t r = 0; r < kTileRows; r += 4) {
      V v[4];
      for (int64_t j = 0; j < 4; ++j) v[j] = i + j < k ? vload(x + (i + j) * stride + r) : vzero();
      vtranspose(v);
      for (int64_t j = 0; j < 4; ++j) vstore(rows[r + j] + i, v[j]);
    }
  for (int64_t r = 0; r < kTileRows; ++r) scales[r] = levels(rows[r], k, bytes[r]);
  interleave<kTileRows>(bytes[0], 64, panel);
}
