// Weights for 8-bit tiles in AVX-512: a row's groups of 64 columns as signed bytes, each with one scale; f32 and
// activations the same way. Included between PG_ISA_BEGIN and PG_ISA_END.
#pragma once

typedef int8_t Level;
constexpr float kMostLevel = 127;

PG_INLINE V levels16() { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
PG_INLINE __m128i toBytes(V v) { return _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)); }
PG_INLINE V spread(__m256 values, int i) {
  return _mm512_permutexvar_ps(_mm512_set1_epi32(i), _mm512_castps256_ps512(values));
}

// 64 columns by two tables of 16 levels: index holds nibbles, the first table serves its lower half.
PG_INLINE __m512i lookUp(__m128i low, __m128i high, __m512i index) {
  const __m512i both = _mm512_castsi256_si512(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1));
  return _mm512_shuffle_epi8(_mm512_permutexvar_epi64(_mm512_setr_epi64(0, 1, 0, 1, 2, 3, 2, 3), both), index);
}

// The larger of each pair of values, in both places.
PG_INLINE __m256 pairMax(__m256 v) { return _mm256_max_ps(_mm256_moveldup_ps(v), _mm256_movehdup_ps(v)); }
PG_INLINE __m256 absolute(__m256 v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }
PG_INLINE __m256 inverseOf(float of, __m256 v) {  // of / v, 0 for 0
  return _mm256_maskz_div_ps(_mm256_cmp_ps_mask(v, _mm256_setzero_ps(), _CMP_NEQ_OQ), _mm256_set1_ps(of), v);
}
PG_INLINE void storeScales(float* scales, __m256 pairs) {  // one of each pair
  _mm_storeu_ps(scales,
                _mm256_castps256_ps128(_mm256_permutevar8x32_ps(pairs, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6))));
}

// The f16 scales of four blocks of kBytes bytes, in the low 64 bits.
template <int kBytes>
PG_INLINE __m128i fourScales(const uint8_t* p) {
  const int w = kBytes / 2;
  const __m512i index = _mm512_castsi128_si512(_mm_setr_epi16(0, w, 2 * w, 3 * w, 0, 0, 0, 0));
  return _mm512_castsi512_si128(_mm512_permutex2var_epi16(_mm512_loadu_si512(p), index, _mm512_loadu_si512(p + 64)));
}

static void unpackQ8_0(const uint8_t* b, int8_t* to, float* scales) {
  const __m256 d = _mm256_cvtph_ps(
                   _mm_unpacklo_epi64(fourScales<pg::kBytesQ8_0>(b), fourScales<pg::kBytesQ8_0>(b + 136))),
               top = pairMax(absolute(d));
  storeScales(scales, top);
  // a rounding product of 16 bits: the block with the larger scale keeps its values
  const __m128i ratios = _mm256_cvtsepi32_epi16(_mm256_cvtps_epi32(_mm256_mul_ps(d, inverseOf(32768, top))));
  const __m512i ratio = _mm512_castsi128_si512(ratios);
  for (int i = 0; i < 8; ++i) {
    const __m512i q = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)(b + pg::kBytesQ8_0 * i + 2)));
    const __m512i r = _mm512_permutexvar_epi16(_mm512_set1_epi16((short)i), ratio);
    _mm256_storeu_si256((__m256i*)(to + 32 * i), _mm512_cvtsepi16_epi8(_mm512_mulhrs_epi16(q, r)));
  }
}

static void unpackQ4_0(const uint8_t* b, int8_t* to, float* scales) {
  const __m512i scalePlace = _mm512_castsi128_si512(_mm_setr_epi16(0, 9, 18, 27, 36, 45, 54, 63));
  const __m256 d = _mm256_cvtph_ps(
      _mm512_castsi512_si128(_mm512_permutex2var_epi16(_mm512_loadu_si512(b), scalePlace, _mm512_loadu_si512(b + 64))));
  // sixteenths of the larger scale: its block is exact, and it decides the sign so that -8 fits a byte
  const __m256 even = _mm256_moveldup_ps(d), odd = _mm256_movehdup_ps(d);
  const __m256 larger = _mm256_mask_blend_ps(_mm256_cmp_ps_mask(absolute(even), absolute(odd), _CMP_GE_OQ), odd, even);
  storeScales(scales, _mm256_mul_ps(larger, _mm256_set1_ps(0.0625f)));
  const __m256 ratio = _mm256_mul_ps(d, inverseOf(16, larger));
  const V levels = vsub(levels16(), vset(8));
  const __m512i place = _mm512_set_epi16(17, 16, 15, 14, 13, 12, 11, 10, 17, 16, 15, 14, 13, 12, 11, 10, 8, 7, 6, 5, 4,
                                         3, 2, 1, 8, 7, 6, 5, 4, 3, 2, 1);
  const __m512i shift = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
  PG_UNROLL
  for (int j = 0; j < 4; ++j) {
    // the last two blocks end a load that begins 14 words before them
    const __m512i two = _mm512_permutexvar_epi16(j < 3 ? place : _mm512_add_epi16(place, _mm512_set1_epi16(14)),
                                                 _mm512_loadu_si512(b + (j < 3 ? 36 * j : 80)));
    const __m512i index = _mm512_and_si512(_mm512_srlv_epi64(two, shift), _mm512_set1_epi8(15));
    _mm512_storeu_si512(to + 64 * j, lookUp(toBytes(vmul(levels, spread(ratio, 2 * j))),
                                            toBytes(vmul(levels, spread(ratio, 2 * j + 1))), index));
  }
}

// Slopes of the eight groups of a Q4_K or Q5_K super-block (they begin alike), then their bases: x = slope * q - base.
PG_INLINE V slopes16(const uint8_t* row) {
  const __m128i v =
      _mm_loadu_si128((const __m128i*)(row + 4));  // twelve bytes of 6-bit numbers, four begin in each word
  const __m128i low = _mm_and_si128(_mm_srlv_epi32(_mm_shuffle_epi32(v, 0x98), _mm_setr_epi32(0, 0, 0, 4)),
                                    _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
  const __m128i six = _mm_ternarylogic_epi32(_mm_srli_epi32(_mm_shuffle_epi32(v, 0x50), 2),
                                             _mm_setr_epi32(0, 0x30303030, 0, 0x30303030), low, 0xea);
  uint32_t both;
  memcpy(&both, row, 4);
  const __m512i which = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  const V d = _mm512_permutexvar_ps(which, _mm512_castps128_ps512(_mm_cvtph_ps(_mm_cvtsi32_si128((int)both))));
  return vmul(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(six)), d);
}

PG_INLINE void slopes(const uint8_t* row, __m256* slope, __m256* base) {
  const V both = slopes16(row);
  *slope = _mm512_castps512_ps256(both);
  *base = _mm512_extractf32x8_ps(both, 1);
}

// The same in units of each pair's byte scale; levels 0..top.
PG_INLINE void pairSlopes(const uint8_t* row, float top, __m256* slope, __m256* base, float* scales) {
  slopes(row, slope, base);
  const __m256 reach =
      pairMax(_mm256_max_ps(absolute(*base), absolute(_mm256_fmsub_ps(*slope, _mm256_set1_ps(top), *base))));
  const __m256 inverse = inverseOf(127, reach);
  storeScales(scales, _mm256_mul_ps(reach, _mm256_set1_ps(1.0f / 127)));
  *slope = _mm256_mul_ps(*slope, inverse);
  *base = _mm256_mul_ps(*base, inverse);
}

static void unpackQ4K(const uint8_t* b, int8_t* to, float* scales) {
  __m256 slope, base;
  pairSlopes(b, 15, &slope, &base, scales);
  const __m512i shift = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4);
  for (int g = 0; g < 4; ++g) {
    const __m512i q = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)(b + 16 + 32 * g)));
    const __m512i index = _mm512_and_si512(_mm512_srlv_epi64(q, shift), _mm512_set1_epi8(15));
    const __m128i low = toBytes(_mm512_fmsub_ps(levels16(), spread(slope, 2 * g), spread(base, 2 * g)));
    const __m128i high = toBytes(_mm512_fmsub_ps(levels16(), spread(slope, 2 * g + 1), spread(base, 2 * g + 1)));
    _mm512_storeu_si512(to + 64 * g, lookUp(low, high, index));
  }
}

static void unpackQ5K(const uint8_t* b, int8_t* to, float* scales) {
  __m256 slope, base;
  pairSlopes(b, 31, &slope, &base, scales);
  const __m512i shift = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4);
  const __m512i fifths = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)(b + 16)));
  const V above = vadd(levels16(), vset(16));
  for (int g = 0; g < 4; ++g) {
    const __m512i q = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)(b + 48 + 32 * g)));
    const __m512i index = _mm512_and_si512(_mm512_srlv_epi64(q, shift), _mm512_set1_epi8(15));
    const __m512i bit =
        _mm512_inserti64x4(_mm512_set1_epi8((char)(1 << (2 * g))), _mm256_set1_epi8((char)(2 << (2 * g))), 1);
    const V m0 = spread(slope, 2 * g), s0 = spread(base, 2 * g), m1 = spread(slope, 2 * g + 1),
            s1 = spread(base, 2 * g + 1);
    const __m512i below =
        lookUp(toBytes(_mm512_fmsub_ps(levels16(), m0, s0)), toBytes(_mm512_fmsub_ps(levels16(), m1, s1)), index);
    const __m512i over =
        lookUp(toBytes(_mm512_fmsub_ps(above, m0, s0)), toBytes(_mm512_fmsub_ps(above, m1, s1)), index);
    _mm512_storeu_si512(to + 64 * g, _mm512_mask_blend_epi8(_mm512_test_epi8_mask(fifths, bit), below, over));
  }
}

static void unpackQ6K(const uint8_t* b, int8_t* to, float* scales) {
  const __m128i s = _mm_loadu_si128((const __m128i*)(b + 192));
  // the largest of four scales, in each of the four places
  __m128i most = _mm_abs_epi8(s);
  most = _mm_max_epu8(most, _mm_rol_epi32(most, 8));
  most = _mm_max_epu8(most, _mm_rol_epi32(most, 16));
  const V top = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(most));
  // bytes are q * scale * 127 / (32 * top): (4 q) times a factor of 16 bits with rounding
  const V factor =
      vmul(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(s)),
           _mm512_maskz_div_ps(_mm512_cmp_ps_mask(top, vzero(), _CMP_GT_OQ), vset(127.0f * 8192 / 32), top));
  const __m256i factors = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(factor));
  const V byteScale = vmul(top, vset(vhalf(b + 208) * 32 / 127));
  _mm_storeu_ps(scales, _mm512_castps512_ps128(_mm512_permutexvar_ps(
                            _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), byteScale)));
  const __m512i turnLow = _mm512_setr_epi32(4, 4, 4, 4, 4, 4, 4, 4, 2, 2, 2, 2, 2, 2, 2, 2);
  // words of the two 16-column groups of 32 columns
  const __m512i lanes = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(1), 1);
  for (int g = 0; g < 4; ++g) {
    const __m512i nibbles = _mm512_loadu_si512(b + 64 * (g / 2)), low = g % 2 ? _mm512_srli_epi16(nibbles, 4) : nibbles;
    const __m512i bits = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)(b + 128 + 32 * (g / 2))));
    // the two high bits to bits 4 and 5
    const __m512i high =
        _mm512_and_si512(_mm512_rolv_epi32(bits, g % 2 ? _mm512_sub_epi32(turnLow, _mm512_set1_epi32(4)) : turnLow),
                         _mm512_set1_epi8(0x30));
    const __m512i q =
        _mm512_sub_epi8(_mm512_ternarylogic_epi32(low, _mm512_set1_epi8(15), high, 0xea), _mm512_set1_epi8(32));
    for (int i = 0; i < 2; ++i) {
      const __m512i wide =
          _mm512_slli_epi16(_mm512_cvtepi8_epi16(i ? _mm512_extracti64x4_epi64(q, 1) : _mm512_castsi512_si256(q)), 2);
      const __m512i f = _mm512_permutexvar_epi16(_mm512_add_epi16(lanes, _mm512_set1_epi16((short)(4 * g + 2 * i))),
                                                 _mm512_castsi256_si512(factors));
      _mm256_storeu_si256((__m256i*)(to + 64 * g + 32 * i), _mm512_cvtsepi16_epi8(_mm512_mulhrs_epi16(wide, f)));
    }
  }
}

PG_INLINE float unpackF32(const float* w, int64_t n, int8_t* to) {
  V v[4], top = vzero();
  for (int i = 0; i < 4; ++i) {
    v[i] = n - 16 * i <= 0 ? vzero() : vloadFirst(w + 16 * i, n - 16 * i);
    top = vmax(top, vabs(v[i]));
  }
  const float max = vmaxAcross(top);
  const V inverse = vset(max > 0 ? 127 / max : 0);
  for (int i = 0; i < 4; ++i)
    _mm_storeu_si128((__m128i*)(to + 16 * i), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(vmul(v[i], inverse))));
  return max / 127;
}
