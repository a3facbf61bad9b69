// Decode kernels in AVX-512 VNNI: a weight row in its file layout times the 8-bit activations of 1 to 8 tokens.
// Included between PG_ISA_BEGIN and PG_ISA_END.
//
// 256 columns (8 blocks or one super-block) at a time: their scales become one vector of f32; 64 columns make one
// register of unsigned weights, multiplied, converted and added with their scales. Offsets and minimums enter as
// scale * (sum of activations) once per 256 columns. Per 64 columns a token costs 4 operations, the weights 3 to 6.
#pragma once

// What one 64-column step adds for every token: acc += float(weights . values) * scale of the lane's group.
#define PG_DOT_STEP(j, weights)                                                                                          \
  for (int t = 0; t < kTokens; ++t) {                                                                                    \
    const __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), weights, _mm512_loadu_si512(values[t] + 64 * (j))); \
    acc[t] = vfma(_mm512_cvtepi32_ps(sums), _mm512_permutexvar_ps(spread[j], product[t]), acc[t]);                       \
  }

// Lanes of 64 columns -> which of eight scales (groups of 32)
#define PG_SPREAD8                                                                     \
  const __m512i pair = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1); \
  const __m512i spread[4] = {pair, _mm512_add_epi32(pair, _mm512_set1_epi32(2)), _mm512_add_epi32(pair, _mm512_set1_epi32(4)), \
                             _mm512_add_epi32(pair, _mm512_set1_epi32(6))};

PG_INLINE void prefetchBlocks(const uint8_t* p, int bytes) {
  for (int i = 0; i < bytes; i += 64) _mm_prefetch((const char*)((uintptr_t)p + 1024 + uintptr_t(i)), _MM_HINT_T0);
}

template <int kTokens>
static void dotQ4_0(const uint8_t* row, int64_t supers, const pg::DecodeTokens* x, int64_t first, float* out, int64_t outStride) {
  PG_SPREAD8
  // words of two blocks: both copies of 16 bytes, the second shifted to its high nibbles
  const __m512i place = _mm512_set_epi16(17, 16, 15, 14, 13, 12, 11, 10, 17, 16, 15, 14, 13, 12, 11, 10, 8, 7, 6, 5, 4, 3, 2, 1, 8, 7, 6, 5, 4, 3, 2, 1);
  const __m512i placeLast = _mm512_add_epi16(place, _mm512_set1_epi16(14));
  const __m512i shift = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4), nibble = _mm512_set1_epi8(15);
  const __m512i scalePlace = _mm512_castsi128_si512(_mm_setr_epi16(0, 9, 18, 27, 36, 45, 54, 63));
  V acc[kTokens];
  __m256 offset[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = vzero(), offset[t] = _mm256_setzero_ps();
  for (int64_t s = 0; s < supers; ++s, row += 144) {
    prefetchBlocks(row, 144);
    const __m512i scales = _mm512_permutex2var_epi16(_mm512_loadu_si512(row), scalePlace, _mm512_loadu_si512(row + 64));
    const __m256 d = _mm256_cvtph_ps(_mm512_castsi512_si128(scales));
    const int8_t* values[kTokens];
    V product[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      const int64_t at = (first + t) * x->padded + 256 * s;
      values[t] = x->values + at;
      product[t] = _mm512_castps256_ps512(_mm256_mul_ps(d, _mm256_loadu_ps(x->scales + at / 32)));
      offset[t] = _mm256_fmadd_ps(d, _mm256_loadu_ps(x->sums + at / 32), offset[t]);
    }
    PG_UNROLL
    for (int j = 0; j < 4; ++j) {
      // the last two blocks end a load that begins 14 words before them
      const __m512i two = _mm512_permutexvar_epi16(j < 3 ? place : placeLast, _mm512_loadu_si512(row + (j < 3 ? 36 * j : 80)));
      const __m512i q = _mm512_and_si512(_mm512_srlv_epi64(two, shift), nibble);
      PG_DOT_STEP(j, q)
    }
  }
  for (int t = 0; t < kTokens; ++t) out[t * outStride] = vsum(acc[t]) - 8 * vsum(_mm512_zextps256_ps512(offset[t]));
}

template <int kTokens>
static void dotQ8_0(const uint8_t* row, int64_t supers, const pg::DecodeTokens* x, int64_t first, float* out, int64_t outStride) {
  PG_SPREAD8
  const __m512i sign = _mm512_set1_epi8((char)128);
  V acc[kTokens];
  __m256 offset[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = vzero(), offset[t] = _mm256_setzero_ps();
  for (int64_t s = 0; s < supers; ++s, row += 272) {
    prefetchBlocks(row, 272);
    const __m256 d = _mm256_cvtph_ps(_mm_unpacklo_epi64(fourScales<34>(row), fourScales<34>(row + 136)));
    const int8_t* values[kTokens];
    V product[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      const int64_t at = (first + t) * x->padded + 256 * s;
      values[t] = x->values + at;
      product[t] = _mm512_castps256_ps512(_mm256_mul_ps(d, _mm256_loadu_ps(x->scales + at / 32)));
      offset[t] = _mm256_fmadd_ps(d, _mm256_loadu_ps(x->sums + at / 32), offset[t]);
    }
    PG_UNROLL
    for (int j = 0; j < 4; ++j) {
      const __m256i a = _mm256_loadu_si256((const __m256i*)(row + 68 * j + 2));
      const __m512i two = _mm512_inserti64x4(_mm512_castsi256_si512(a), _mm256_loadu_si256((const __m256i*)(row + 68 * j + 36)), 1);
      const __m512i q = _mm512_xor_si512(two, sign);
      PG_DOT_STEP(j, q)
    }
  }
  for (int t = 0; t < kTokens; ++t) out[t * outStride] = vsum(acc[t]) - 128 * vsum(_mm512_zextps256_ps512(offset[t]));
}

// Q4_K, and Q5_K with its fifth bits
template <int kTokens, bool kFive>
static void dotQ45K(const uint8_t* row, int64_t supers, const pg::DecodeTokens* x, int64_t first, float* out, int64_t outStride) {
  PG_SPREAD8
  const __m512i shift = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4), nibble = _mm512_set1_epi8(15), bit4 = _mm512_set1_epi8(16);
  // turns bits 0 and 1 to bit 4
  const __m512i turn = _mm512_setr_epi32(4, 4, 4, 4, 4, 4, 4, 4, 3, 3, 3, 3, 3, 3, 3, 3);
  V acc[kTokens];
  __m256 offset[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = vzero(), offset[t] = _mm256_setzero_ps();
  for (int64_t s = 0; s < supers; ++s, row += kFive ? 176 : 144) {
    prefetchBlocks(row, kFive ? 176 : 144);
    __m256 scales, mins;
    slopes(row, &scales, &mins);
    const int8_t* values[kTokens];
    V product[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      const int64_t at = (first + t) * x->padded + 256 * s;
      values[t] = x->values + at;
      product[t] = _mm512_castps256_ps512(_mm256_mul_ps(scales, _mm256_loadu_ps(x->scales + at / 32)));
      offset[t] = _mm256_fmadd_ps(mins, _mm256_loadu_ps(x->sums + at / 32), offset[t]);
    }
    const uint8_t* qs = row + (kFive ? 48 : 16);
    const __m512i high = kFive ? _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)(row + 16))) : _mm512_setzero_si512();
    PG_UNROLL
    for (int j = 0; j < 4; ++j) {
      const __m512i two = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)(qs + 32 * j)));
      __m512i q = _mm512_and_si512(_mm512_srlv_epi64(two, shift), nibble);
      if (kFive) q = _mm512_ternarylogic_epi32(_mm512_rolv_epi32(high, _mm512_sub_epi32(turn, _mm512_set1_epi32(2 * j))), bit4, q, 0xea);
      PG_DOT_STEP(j, q)
    }
  }
  for (int t = 0; t < kTokens; ++t) out[t * outStride] = vsum(acc[t]) - vsum(_mm512_zextps256_ps512(offset[t]));
}

template <int kTokens>
static void dotQ6K(const uint8_t* row, int64_t supers, const pg::DecodeTokens* x, int64_t first, float* out, int64_t outStride) {
  // scales are per 16 columns: four lanes each
  const __m512i quad = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  const __m512i spread[4] = {quad, _mm512_add_epi32(quad, _mm512_set1_epi32(4)), _mm512_add_epi32(quad, _mm512_set1_epi32(8)),
                             _mm512_add_epi32(quad, _mm512_set1_epi32(12))};
  const __m512i nibble = _mm512_set1_epi8(15), bits45 = _mm512_set1_epi8(0x30), twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  const __m512i turnLow = _mm512_setr_epi32(4, 4, 4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2);
  const __m512i turnHigh = _mm512_sub_epi32(turnLow, _mm512_set1_epi32(4));
  V acc[kTokens], offset[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = offset[t] = vzero();
  for (int64_t s = 0; s < supers; ++s, row += 210) {
    prefetchBlocks(row, 210);
    const V scales = vmul(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)(row + 192)))), vset(vhalf(row + 208)));
    const int8_t* values[kTokens];
    V product[kTokens];
    for (int t = 0; t < kTokens; ++t) {
      const int64_t at = (first + t) * x->padded + 256 * s;
      values[t] = x->values + at;
      product[t] = vmul(scales, _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(x->scales + at / 32))));
      offset[t] = vfma(scales, vload(x->sums16 + at / 16), offset[t]);
    }
    PG_UNROLL
    for (int h = 0; h < 2; ++h) {
      const __m512i low = _mm512_loadu_si512(row + 64 * h);
      const __m512i high = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)(row + 128 + 32 * h)));
      const __m512i a = _mm512_ternarylogic_epi32(_mm512_rolv_epi32(high, turnLow), bits45, _mm512_and_si512(low, nibble), 0xea);
      PG_DOT_STEP(2 * h, a)
      const __m512i b = _mm512_ternarylogic_epi32(_mm512_rolv_epi32(high, turnHigh), bits45, _mm512_and_si512(_mm512_srli_epi16(low, 4), nibble), 0xea);
      PG_DOT_STEP(2 * h + 1, b)
    }
  }
  for (int t = 0; t < kTokens; ++t) out[t * outStride] = vsum(acc[t]) - 32 * vsum(offset[t]);
}

template <int kTokens>
static void dotRow8(pg::DType type, const uint8_t* row, int64_t supers, const pg::DecodeTokens* x, int64_t first, float* out, int64_t outStride) {
  switch (type) {
    case pg::DType::q4_0: dotQ4_0<kTokens>(row, supers, x, first, out, outStride); break;
    case pg::DType::q8_0: dotQ8_0<kTokens>(row, supers, x, first, out, outStride); break;
    case pg::DType::q4_k: dotQ45K<kTokens, false>(row, supers, x, first, out, outStride); break;
    case pg::DType::q5_k: dotQ45K<kTokens, true>(row, supers, x, first, out, outStride); break;
    default: dotQ6K<kTokens>(row, supers, x, first, out, outStride);
  }
}

static void quantizeTokens(const float* x, int64_t stride, int64_t count, int64_t k, pg::DecodeTokens to) {
  for (int64_t t = 0; t < count; ++t)
    for (int64_t c = 0; c < to.padded; c += 32) {
      const int64_t at = t * to.padded + c, left = k - c;
      const V a = left > 0 ? vloadFirst(x + t * stride + c, left) : vzero(), b = left > 16 ? vloadFirst(x + t * stride + c + 16, left - 16) : vzero();
      const float top = vmaxAcross(vmax(vabs(a), vabs(b))), scale = top / 127;
      const V inverse = vset(top > 0 ? 127 / top : 0);
      const __m512i qa = _mm512_cvtps_epi32(vmul(a, inverse)), qb = _mm512_cvtps_epi32(vmul(b, inverse));
      _mm_storeu_si128((__m128i*)(to.values + at), _mm512_cvtsepi32_epi8(qa));
      _mm_storeu_si128((__m128i*)(to.values + at + 16), _mm512_cvtsepi32_epi8(qb));
      const float sumA = scale * (float)_mm512_reduce_add_epi32(qa), sumB = scale * (float)_mm512_reduce_add_epi32(qb);
      to.scales[at / 32] = scale;
      to.sums[at / 32] = scale * (float)(_mm512_reduce_add_epi32(qa) + _mm512_reduce_add_epi32(qb));
      to.sums16[at / 16] = sumA;
      to.sums16[at / 16 + 1] = sumB;
    }
}
