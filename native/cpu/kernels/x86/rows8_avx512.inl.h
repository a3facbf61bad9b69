// Decode kernels in AVX-512 VNNI: a weight row in its file layout times the 8-bit activations of 1 to 8 tokens.
// Included between PG_ISA_BEGIN and PG_ISA_END.
//
// 128 columns (four groups of 32) make two registers: the first 16 columns of every group, then their last 16. So both
// products go to one sum, in which a group fills four lanes, and are converted, scaled and added together: 5 operations
// a token where columns in their order would take 8. Offsets and minimums enter as scale * (sum of activations) once
// per 256 columns.
#pragma once

// 256 columns of a token
struct TokenBlock {
  int8_t values[2][2][4][16];  // [columns / 128][half of a group][group][column]
  float scales[8], sums[8];  // of groups: scale, and scale * (sum of values); one load
  float sums16[16];  // the latter of half groups, in the order of columns
};

// Four lanes for each of the first, of the last four groups
#define PG_SPREAD8                                                                              \
  const __m512i spread[2] = {_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), \
                             _mm512_setr_epi32(4, 4, 4, 4, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7)};

#define PG_BEGIN_SUMS \
  V acc[kTokens];     \
  for (int t = 0; t < kTokens; ++t) acc[t] = vzero();
#define PG_END_SUMS \
  for (int t = 0; t < kTokens; ++t) out[t * outStride] = vsum(acc[t]);

// slopes: what eight groups' products are multiplied by, then what their sums are multiplied by and taken away
#define PG_BEGIN_SUPER(slopes)                                       \
  V product[kTokens];                                                \
  for (int t = 0; t < kTokens; ++t) {                                \
    product[t] = vmul(slopes, vload(x[t * tokenBlocks + s].scales)); \
    acc[t] = _mm512_mask_sub_ps(acc[t], 0xff00, acc[t], product[t]); \
  }
// What half h of a super-block adds for every token
#define PG_DOT_HALF(h, first16, last16)                                                                 \
  for (int t = 0; t < kTokens; ++t) {                                                                   \
    const auto& values = x[t * tokenBlocks + s].values[h];                                              \
    __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), first16, _mm512_loadu_si512(values[0])); \
    sums = _mm512_dpbusd_epi32(sums, last16, _mm512_loadu_si512(values[1]));                            \
    acc[t] = vfma(_mm512_cvtepi32_ps(sums), _mm512_permutexvar_ps(spread[h], product[t]), acc[t]);      \
  }

template <int kTokens>
static void dotQ4_0(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out,
                    int64_t outStride) {
  PG_SPREAD8
  // words of blocks 0..3 from bytes 0..127, of blocks 4..6 from bytes 64..127; block 7 is the last 16 bytes. Every byte
  // is loaded once, in order: overlapping loads halve what the hardware prefetcher brings.
  const __m512i place0 = _mm512_set_epi16(35, 34, 33, 32, 31, 30, 29, 28, 26, 25, 24, 23, 22, 21, 20, 19, 17, 16, 15,
                                          14, 13, 12, 11, 10, 8, 7, 6, 5, 4, 3, 2, 1);
  const __m512i place1 = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 30, 29, 28, 27, 26, 25, 24, 23, 21, 20, 19, 18, 17,
                                          16, 15, 14, 12, 11, 10, 9, 8, 7, 6, 5);
  const __m512i scalePlace = _mm512_broadcast_i32x4(_mm_setr_epi16(0, 9, 18, 27, 36, 45, 54, 63));
  const __m512i nibble = _mm512_set1_epi8(15);
  const V factors = _mm512_setr_ps(1, 1, 1, 1, 1, 1, 1, 1, 8, 8, 8, 8, 8, 8, 8, 8);
  PG_BEGIN_SUMS
  for (int64_t s = 0; s < supers; ++s, row += 8 * pg::kBytesQ4_0) {
    prefetchBlocks(row, 8 * pg::kBytesQ4_0);
    const __m512i front = _mm512_loadu_si512(row), middle = _mm512_loadu_si512(row + 64);
    const __m128i back = _mm_loadu_si128((const __m128i*)(row + 128));
    const __m512i scales = _mm512_permutex2var_epi16(front, scalePlace, middle);  // all eight, twice
    PG_BEGIN_SUPER(vmul(_mm512_cvtph_ps(_mm512_castsi512_si256(scales)), factors))
    PG_UNROLL
    for (int h = 0; h < 2; ++h) {
      const __m512i q = h ? _mm512_inserti32x4(_mm512_permutexvar_epi16(place1, middle), back, 3)
                          : _mm512_permutex2var_epi16(front, place0, middle);
      const __m512i first16 = _mm512_and_si512(q, nibble), last16 = _mm512_and_si512(_mm512_srli_epi16(q, 4), nibble);
      PG_DOT_HALF(h, first16, last16)
    }
  }
  PG_END_SUMS
}

template <int kTokens>
static void dotQ8_0(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out,
                    int64_t outStride) {
  PG_SPREAD8
  const __m512i sign = _mm512_set1_epi8((char)128);
  const V factors = _mm512_setr_ps(1, 1, 1, 1, 1, 1, 1, 1, 128, 128, 128, 128, 128, 128, 128, 128);
  PG_BEGIN_SUMS
  for (int64_t s = 0; s < supers; ++s, row += 8 * pg::kBytesQ8_0) {
    prefetchBlocks(row, 8 * pg::kBytesQ8_0);
    const __m128i scales = _mm_unpacklo_epi64(fourScales<pg::kBytesQ8_0>(row), fourScales<pg::kBytesQ8_0>(row + 136));
    PG_BEGIN_SUPER(vmul(_mm512_cvtph_ps(_mm256_broadcastsi128_si256(scales)), factors))
    PG_UNROLL
    for (int h = 0; h < 2; ++h) {
      const uint8_t* q = row + 136 * h + 2;
      const __m512i a = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i*)q)),
                                           _mm256_loadu_si256((const __m256i*)(q + 34)), 1);
      const __m512i b = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256((const __m256i*)(q + 68))),
                                           _mm256_loadu_si256((const __m256i*)(q + 102)), 1);
      const __m512i first16 = _mm512_xor_si512(_mm512_shuffle_i64x2(a, b, 0x88), sign),
                    last16 = _mm512_xor_si512(_mm512_shuffle_i64x2(a, b, 0xdd), sign);
      PG_DOT_HALF(h, first16, last16)
    }
  }
  PG_END_SUMS
}

template <int kTokens, bool kEight>
static void dotQ48_0(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out,
                     int64_t outStride) {
  if (kEight) dotQ8_0<kTokens>(row, supers, x, tokenBlocks, out, outStride);
  else dotQ4_0<kTokens>(row, supers, x, tokenBlocks, out, outStride);
}

// Q4_K, and Q5_K with its fifth bits
template <int kTokens, bool kFive>
static void dotQ45K(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out,
                    int64_t outStride) {
  PG_SPREAD8
  const __m512i nibble = _mm512_set1_epi8(15), bit4 = _mm512_set1_epi8(16);
  // low nibbles are groups 0 and 2 of a half, high ones 1 and 3: their first 16 columns, then their last
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13),
                last = _mm512_add_epi64(first, _mm512_set1_epi64(2));
  // turns bits 0 and 2 to bit 4
  const __m512i turn = _mm512_setr_epi32(4, 4, 4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2);
  PG_BEGIN_SUMS
  for (int64_t s = 0; s < supers; ++s, row += kFive ? pg::kBytesQ5K : pg::kBytesQ4K) {
    prefetchBlocks(row, kFive ? pg::kBytesQ5K : pg::kBytesQ4K);
    PG_BEGIN_SUPER(slopes16(row))
    const uint8_t* qs = row + (kFive ? 48 : 16);
    const __m512i high =
        kFive ? _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)(row + 16))) : _mm512_setzero_si512();
    PG_UNROLL
    for (int h = 0; h < 2; ++h) {
      const __m512i q = _mm512_loadu_si512(qs + 64 * h);
      __m512i even = _mm512_and_si512(q, nibble), odd = _mm512_and_si512(_mm512_srli_epi16(q, 4), nibble);
      if (kFive) {
        const __m512i by = _mm512_sub_epi32(turn, _mm512_set1_epi32(4 * h));
        even = _mm512_ternarylogic_epi32(_mm512_rolv_epi32(high, by), bit4, even, 0xea);
        odd = _mm512_ternarylogic_epi32(_mm512_rolv_epi32(high, _mm512_sub_epi32(by, _mm512_set1_epi32(1))), bit4, odd,
                                        0xea);
      }
      const __m512i first16 = _mm512_permutex2var_epi64(even, first, odd),
                    last16 = _mm512_permutex2var_epi64(even, last, odd);
      PG_DOT_HALF(h, first16, last16)
    }
  }
  PG_END_SUMS
}

template <int kTokens>
static void dotQ6K(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out,
                   int64_t outStride) {
  PG_SPREAD8
  // a scale per 16 columns: of the first halves of four groups
  const __m512i spread16 = _mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
  const __m512i nibble = _mm512_set1_epi8(15), bits45 = _mm512_set1_epi8(0x30);
  const __m512i turnLow = _mm512_setr_epi32(4, 4, 4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2);
  const __m512i turnHigh = _mm512_sub_epi32(turnLow, _mm512_set1_epi32(4));
  PG_BEGIN_SUMS
  for (int64_t s = 0; s < supers; ++s, row += pg::kBytesQ6K) {
    prefetchBlocks(row, pg::kBytesQ6K);
    const V scales = vmul(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(row + 192)))),
                          vset(vhalf(row + 208)));
    PG_UNROLL
    for (int h = 0; h < 2; ++h) {
      const __m512i low = _mm512_loadu_si512(row + 64 * h);
      const __m512i high = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)(row + 128 + 32 * h)));
      const __m512i a =
          _mm512_ternarylogic_epi32(_mm512_rolv_epi32(high, turnLow), bits45, _mm512_and_si512(low, nibble), 0xea);
      const __m512i b = _mm512_ternarylogic_epi32(_mm512_rolv_epi32(high, turnHigh), bits45,
                                                  _mm512_and_si512(_mm512_srli_epi16(low, 4), nibble), 0xea);
      const __m512i first16 = _mm512_shuffle_i64x2(a, b, 0x88), last16 = _mm512_shuffle_i64x2(a, b, 0xdd);
      const V first = _mm512_permutexvar_ps(_mm512_add_epi32(spread16, _mm512_set1_epi32(8 * h)), scales);
      const V last = _mm512_permutexvar_ps(_mm512_add_epi32(spread16, _mm512_set1_epi32(8 * h + 1)), scales);
      for (int t = 0; t < kTokens; ++t) {
        const TokenBlock& block = x[t * tokenBlocks + s];
        const __m512i sums =
            _mm512_dpbusd_epi32(_mm512_setzero_si512(), first16, _mm512_loadu_si512(block.values[h][0]));
        const __m512i more =
            _mm512_dpbusd_epi32(_mm512_setzero_si512(), last16, _mm512_loadu_si512(block.values[h][1]));
        const V product = vfma(_mm512_cvtepi32_ps(more), last, vmul(_mm512_cvtepi32_ps(sums), first));
        acc[t] = vfma(product, _mm512_permutexvar_ps(spread[h], vload(block.scales)), acc[t]);
      }
    }
    const V offsets = vmul(scales, vset(32));
    for (int t = 0; t < kTokens; ++t) acc[t] = vfnma(offsets, vload(x[t * tokenBlocks + s].sums16), acc[t]);
  }
  PG_END_SUMS
}

static void quantizeBlock(const float* x, int64_t n, TokenBlock* to) {
  alignas(64) float few[256];
  if (n < 256) {
    memset(few, 0, sizeof few);
    x = (const float*)memcpy(few, x, size_t(n) * sizeof(float));
  }
  for (int g = 0; g < 8; ++g) {
    const V a = vload(x + 32 * g), b = vload(x + 32 * g + 16);
    const float top = vmaxAcross(vmax(vabs(a), vabs(b))), scale = top / 127;
    const V inverse = vset(top > 0 ? 127 / top : 0);
    const __m512i qa = _mm512_cvtps_epi32(vmul(a, inverse)), qb = _mm512_cvtps_epi32(vmul(b, inverse));
    _mm_storeu_si128((__m128i*)to->values[g / 4][0][g % 4], _mm512_cvtsepi32_epi8(qa));
    _mm_storeu_si128((__m128i*)to->values[g / 4][1][g % 4], _mm512_cvtsepi32_epi8(qb));
    const int32_t sumA = _mm512_reduce_add_epi32(qa), sumB = _mm512_reduce_add_epi32(qb);
    to->scales[g] = scale;
    to->sums[g] = scale * (float)(sumA + sumB);
    to->sums16[2 * g] = scale * (float)sumA;
    to->sums16[2 * g + 1] = scale * (float)sumB;
  }
}
