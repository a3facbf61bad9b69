// Decode kernels in AVX2: a weight row in its file layout times the 8-bit activations of 1 to 8 tokens, 32 columns a
// register: unsigned weights by vpmaddubsw, which cannot saturate (at most 2 * 63 * 127, or 2 * 128 * 127 for Q8_0, where
// the signs move to the activations). Included between PG_ISA_BEGIN and PG_ISA_END.
#pragma once
#include "cpu/token_block.h"

PG_INLINE V dot32(__m256i w, __m256i x) {
  return _mm256_cvtepi32_ps(_mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
}

// The f16 scales of eight blocks of kBytes bytes.
template <int kBytes>
PG_INLINE V eightScales(const uint8_t* p) {
  uint16_t d[8];
  for (int i = 0; i < 8; ++i) memcpy(d + i, p + kBytes * i, 2);
  return _mm256_cvtph_ps(_mm_setr_epi16((short)d[0], (short)d[1], (short)d[2], (short)d[3], (short)d[4], (short)d[5], (short)d[6], (short)d[7]));
}

// What all types share: `product` gets scale * scale of the eight groups of 32, `offset` the sums times `mins`.
#define PG_BEGIN_SUPER(SLOPE, BASE)                                             \
  const int8_t* values[kTokens];                                               \
  float product[kTokens][8];                                                   \
  for (int t = 0; t < kTokens; ++t) {                                          \
    const TokenBlock& b = x[t * tokenBlocks + s];                              \
    values[t] = b.values;                                                      \
    vstore(product[t], vmul(SLOPE, vload(b.scales)));                          \
    offset[t] = vfma(BASE, vload(b.sums), offset[t]);                          \
  }

template <int kTokens, bool kEight>
static void dotQ48_0(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out, int64_t outStride) {
  constexpr int kBytes = kEight ? 34 : 18;
  V acc[kTokens], offset[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = offset[t] = vzero();
  for (int64_t s = 0; s < supers; ++s, row += 8 * kBytes) {
    prefetchBlocks(row, 8 * kBytes);
    const V d = eightScales<kBytes>(row);
    PG_BEGIN_SUPER(d, d)
    for (int j = 0; j < 8; ++j) {
      const uint8_t* q = row + kBytes * j + 2;
      __m256i w;
      if (kEight) {
        w = _mm256_loadu_si256((const __m256i*)q);
      } else {
        const __m128i low = _mm_loadu_si128((const __m128i*)q);
        w = _mm256_and_si256(_mm256_inserti128_si256(_mm256_castsi128_si256(low), _mm_srli_epi16(low, 4), 1), _mm256_set1_epi8(15));
      }
      const __m256i magnitude = kEight ? _mm256_abs_epi8(w) : w;
      for (int t = 0; t < kTokens; ++t) {
        const __m256i v = _mm256_loadu_si256((const __m256i*)(values[t] + 32 * j));
        acc[t] = vfma(dot32(magnitude, kEight ? _mm256_sign_epi8(v, w) : v), vset(product[t][j]), acc[t]);
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) out[t * outStride] = kEight ? vsum(acc[t]) : vsum(acc[t]) - 8 * vsum(offset[t]);
}

template <int kTokens, bool kFive>
static void dotQ45K(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out, int64_t outStride) {
  V acc[kTokens], offset[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = offset[t] = vzero();
  for (int64_t s = 0; s < supers; ++s, row += kFive ? 176 : 144) {
    prefetchBlocks(row, kFive ? 176 : 144);
    float slope[8], base[8];
    slopes(row, slope, base);
    PG_BEGIN_SUPER(vload(slope), vload(base))
    for (int j = 0; j < 4; ++j)
      for (int high = 0; high < 2; ++high) {
        const __m256i w = nibblesK(row + (kFive ? 48 : 16), kFive ? row + 16 : NULL, j, high);
        for (int t = 0; t < kTokens; ++t)
          acc[t] = vfma(dot32(w, _mm256_loadu_si256((const __m256i*)(values[t] + 64 * j + 32 * high))), vset(product[t][2 * j + high]), acc[t]);
      }
  }
  for (int t = 0; t < kTokens; ++t) out[t * outStride] = vsum(acc[t]) - vsum(offset[t]);
}

template <int kTokens>
static void dotQ6K(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out, int64_t outStride) {
  V acc[kTokens], offset[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = offset[t] = vzero();
  for (int64_t s = 0; s < supers; ++s, row += 210) {
    prefetchBlocks(row, 210);
    const V d = vset(vhalf(row + 208));
    const V a = vmul(vloadI8((const int8_t*)row + 192), d), b = vmul(vloadI8((const int8_t*)row + 200), d);
    float scales[16];   // of groups of 16 columns
    vstore(scales, a);
    vstore(scales + 8, b);
    const int8_t* values[kTokens];
    const float* xs[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      const TokenBlock& block = x[t * tokenBlocks + s];
      values[t] = block.values;
      xs[t] = block.scales;
      offset[t] = vfma(a, vload(block.sums16), vfma(b, vload(block.sums16 + 8), offset[t]));
    }
    for (int part = 0; part < 8; ++part) {
      const __m256i w = sixBits(row, part);
      const V two = _mm256_insertf128_ps(_mm256_set1_ps(scales[2 * part]), _mm_set1_ps(scales[2 * part + 1]), 1);
      for (int t = 0; t < kTokens; ++t)
        acc[t] = vfma(vmul(two, vset(xs[t][part])), dot32(w, _mm256_loadu_si256((const __m256i*)(values[t] + 32 * part))), acc[t]);
    }
  }
  for (int t = 0; t < kTokens; ++t) out[t * outStride] = vsum(acc[t]) - 32 * vsum(offset[t]);
}

static void quantizeBlock(const float* x, int64_t n, TokenBlock* to) {
  for (int g = 0; g < 8; ++g) {
    V v[4], top = vzero();
    for (int i = 0; i < 4; ++i) {
      const int64_t at = 32 * g + 8 * i;
      v[i] = n - at >= 8 ? vload(x + at) : n <= at ? vzero() : vloadFirst(x + at, n - at);
      top = vmax(top, vabs(v[i]));
    }
    const float max = vmaxAcross(top), scale = max / 127;
    const V inverse = vset(max > 0 ? 127 / max : 0);
    __m256i q[4];
    for (int i = 0; i < 4; ++i) q[i] = _mm256_cvtps_epi32(vmul(v[i], inverse));
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    _mm256_storeu_si256((__m256i*)(to->values + 32 * g), _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
    const float low = vsum(_mm256_cvtepi32_ps(_mm256_add_epi32(q[0], q[1]))), high = vsum(_mm256_cvtepi32_ps(_mm256_add_epi32(q[2], q[3])));
    to->scales[g] = scale;
    to->sums[g] = scale * (low + high);
    to->sums16[2 * g] = scale * low;
    to->sums16[2 * g + 1] = scale * high;
  }
}
