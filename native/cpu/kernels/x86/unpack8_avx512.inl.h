// Weights for 8-bit tiles in AVX-512: a row's groups of 64 columns as signed bytes, each with one scale; f32 and
// activations the same way. Included between PG_ISA_BEGIN and PG_ISA_END.
#pragma once

typedef int8_t Level;
constexpr float kMostLevel = 127;

PG_INLINE __m128i toBytes(V v) { return _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v)); }

// The lower word of every dword, in both places.
PG_INLINE __m256i twice(__m256i v) { return _mm256_mask_blend_epi16(0xaaaa, v, _mm256_slli_epi32(v, 16)); }
// Numbers from -1 to 1 as factors of a rounding product of 16 bits, twice in a dword.
PG_INLINE __m256i ratios15(__m256 ratios) {
  const __m256i whole = _mm256_cvtps_epi32(_mm256_mul_ps(ratios, _mm256_set1_ps(32768)));
  return twice(_mm256_max_epi32(_mm256_min_epi32(whole, _mm256_set1_epi32(32767)), _mm256_set1_epi32(-32767)));
}
// The dwords of two groups, the first for the lower, the second for the upper 32 of 64 columns.
PG_INLINE __m512i forPair(__m256i groups, int pair) {
  const __m512i places = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  return _mm512_permutexvar_epi32(_mm512_add_epi32(places, _mm512_set1_epi32(2 * pair)),
                                  _mm512_castsi256_si512(groups));
}
// (a & mask) ^ b
PG_INLINE __m512i maskedXor(__m512i a, int mask, __m512i b) {
  return _mm512_ternarylogic_epi32(a, _mm512_set1_epi8((char)mask), b, 0x6a);
}

// Levels of 64 signed bytes: q * ratio in 256ths (kBits = 8), or 2 * q * ratio in 128ths (7), plus `add`, which has
// half a step to round, and its fraction cut off. Odd and even columns are multiplied as upper halves of words.
template <int kBits>
PG_INLINE __m512i toLevels(__m512i q, __m512i ratio, __m512i add) {
  const __m512i high = _mm512_set1_epi16((short)0xff00);
  const __m512i odd = _mm512_adds_epi16(_mm512_mulhrs_epi16(_mm512_and_si512(q, high), ratio), add),
                even = _mm512_adds_epi16(_mm512_mulhrs_epi16(_mm512_slli_epi16(q, 8), ratio), add);
  return _mm512_ternarylogic_epi32(high, kBits < 8 ? _mm512_slli_epi16(odd, 8 - kBits) : odd,
                                   _mm512_srli_epi16(even, kBits), 0xca);  // high ? odd : even
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
  const __m512i index = _mm512_broadcast_i32x4(_mm_setr_epi16(0, w, 2 * w, 3 * w, 0, 0, 0, 0));
  return _mm512_castsi512_si128(_mm512_permutex2var_epi16(_mm512_loadu_si512(p), index, _mm512_loadu_si512(p + 64)));
}

static void unpackQ8_0(const uint8_t* b, int8_t* to, float* scales) {
  const __m256 d = _mm256_cvtph_ps(
                   _mm_unpacklo_epi64(fourScales<pg::kBytesQ8_0>(b), fourScales<pg::kBytesQ8_0>(b + 136))),
               top = pairMax(absolute(d));
  storeScales(scales, top);
  const __m256i ratios = ratios15(_mm256_mul_ps(d, inverseOf(1, top)));  // the larger block keeps its values
  PG_UNROLL
  for (int i = 0; i < 4; ++i, b += 2 * pg::kBytesQ8_0) {
    const __m512i q =
        _mm512_inserti64x4(_mm512_loadu_si512(b + 2), _mm256_loadu_si256((const __m256i*)(b + 2 + pg::kBytesQ8_0)), 1);
    _mm512_storeu_si512(to + 64 * i, toLevels<8>(q, forPair(ratios, i), _mm512_set1_epi16(128)));
  }
}

static void unpackQ4_0(const uint8_t* b, int8_t* to, float* scales) {
  const __m512i scalePlace = _mm512_broadcast_i32x4(_mm_setr_epi16(0, 9, 18, 27, 36, 45, 54, 63));
  const __m256 d = _mm256_cvtph_ps(
      _mm512_castsi512_si128(_mm512_permutex2var_epi16(_mm512_loadu_si512(b), scalePlace, _mm512_loadu_si512(b + 64))));
  // sixteenths of the larger scale: its block is exact, and it decides the sign so that -8 fits a byte
  const __m256 even = _mm256_moveldup_ps(d), odd = _mm256_movehdup_ps(d);
  const __m256 larger = _mm256_mask_blend_ps(_mm256_cmp_ps_mask(absolute(even), absolute(odd), _CMP_GE_OQ), odd, even);
  storeScales(scales, _mm256_mul_ps(larger, _mm256_set1_ps(0.0625f)));
  const __m256i ratios = ratios15(_mm256_mul_ps(d, inverseOf(1, larger)));
  const __m512i place = _mm512_set_epi16(17, 16, 15, 14, 13, 12, 11, 10, 17, 16, 15, 14, 13, 12, 11, 10, 8, 7, 6, 5, 4,
                                         3, 2, 1, 8, 7, 6, 5, 4, 3, 2, 1);
  const __m512i up = _mm512_setr_epi64(4, 4, 0, 0, 4, 4, 0, 0), sign = _mm512_set1_epi8((char)128);
  PG_UNROLL
  for (int j = 0; j < 4; ++j) {
    // the last two blocks end a load that begins 14 words before them
    const __m512i two = _mm512_permutexvar_epi16(j < 3 ? place : _mm512_add_epi16(place, _mm512_set1_epi16(14)),
                                                 _mm512_loadu_si512(b + (j < 3 ? 36 * j : 80)));
    const __m512i q = maskedXor(_mm512_sllv_epi64(two, up), 0xf0, sign);  // 16 * (level - 8)
    _mm512_storeu_si512(to + 64 * j, toLevels<8>(q, forPair(ratios, j), _mm512_set1_epi16(128)));
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

// Q4_K, and Q5_K with its fifth bits, in units of each pair's byte scale: slope * (q - middle) + (slope * middle -
// base)
template <bool kFive>
PG_INLINE void unpackQ45K(const uint8_t* b, int8_t* to, float* scales) {
  constexpr int kMiddle = kFive ? 16 : 8;
  __m256 slope, base;
  slopes(b, &slope, &base);
  const __m256 last = _mm256_fmsub_ps(slope, _mm256_set1_ps(2 * kMiddle - 1), base);
  const __m256 reach = pairMax(_mm256_max_ps(absolute(base), absolute(last))), inverse = inverseOf(127, reach);
  storeScales(scales, _mm256_mul_ps(reach, _mm256_set1_ps(1.0f / 127)));
  // 128ths of levels of the bytes 128 / middle * (q - middle); a slope reaches 254 / (2 * middle - 1)
  slope = _mm256_mul_ps(slope, inverse);
  const __m256i ratios = ratios15(_mm256_mul_ps(slope, _mm256_set1_ps(kMiddle / 256.0f)));
  const __m256 middle = _mm256_fnmadd_ps(base, inverse, _mm256_mul_ps(slope, _mm256_set1_ps(kMiddle)));
  const __m256i adds = twice(_mm256_cvtps_epi32(_mm256_fmadd_ps(middle, _mm256_set1_ps(128), _mm256_set1_ps(64))));
  const __m512i up = kFive ? _mm512_setr_epi64(3, 3, 3, 3, 63, 63, 63, 63) : _mm512_setr_epi64(4, 4, 4, 4, 0, 0, 0, 0);
  const uint8_t* qs = b + (kFive ? 48 : 16);
  PG_UNROLL
  for (int g = 0; g < 4; ++g) {
    const __m512i two =
        _mm512_rolv_epi64(_mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)(qs + 32 * g))), up);
    __m512i q;
    if (kFive) {
      // bits 2 g and 2 g + 1 of a byte to bit 7, whose opposite is the sign
      const __m512i turn = _mm512_sub_epi64(_mm512_setr_epi64(7, 7, 7, 7, 6, 6, 6, 6), _mm512_set1_epi64(2 * g));
      const __m512i fifths = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)(b + 16)));
      q = maskedXor(_mm512_rolv_epi64(fifths, turn), 0x80, maskedXor(two, 0x78, _mm512_set1_epi8((char)128)));
    } else {
      q = maskedXor(two, 0xf0, _mm512_set1_epi8((char)128));
    }
    _mm512_storeu_si512(to + 64 * g, toLevels<7>(q, forPair(ratios, g), forPair(adds, g)));
  }
}
static void unpackQ4K(const uint8_t* b, int8_t* to, float* scales) { unpackQ45K<false>(b, to, scales); }
static void unpackQ5K(const uint8_t* b, int8_t* to, float* scales) { unpackQ45K<true>(b, to, scales); }

static void unpackQ6K(const uint8_t* b, int8_t* to, float* scales) {
  const __m128i s = _mm_loadu_si128((const __m128i*)(b + 192));
  // the largest of four scales, in each of the four places
  __m128i most = _mm_abs_epi8(s);
  most = _mm_max_epu8(most, _mm_rol_epi32(most, 8));
  most = _mm_max_epu8(most, _mm_rol_epi32(most, 16));
  const V top = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(most));
  // a level is 4 * (q - 32) times scale * 127 / (128 * top)
  const V ratio = vmul(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(s)),
                       _mm512_maskz_div_ps(_mm512_cmp_ps_mask(top, vzero(), _CMP_GT_OQ), vset(127.0f * 256), top));
  const __m512i whole = _mm512_cvtps_epi32(ratio);
  const __m512i ratios = _mm512_mask_blend_epi16(0xaaaaaaaa, whole, _mm512_slli_epi32(whole, 16));
  const V byteScale = vmul(top, vset(vhalf(b + 208) * 32 / 127));
  _mm_storeu_ps(scales, _mm512_castps512_ps128(_mm512_permutexvar_ps(
                            _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0), byteScale)));
  const __m512i places = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);  // groups of 16 columns
  const __m512i lower = _mm512_setr_epi64(2, 2, 2, 2, 0, 0, 0, 0);
  PG_UNROLL
  for (int g = 0; g < 4; ++g) {
    // the low bits, nibbles of one kind, to bits 2 to 5; pairs of bits, 2 * (g % 2 * 2) on and two further, to 6 and 7
    const __m512i nibbles = _mm512_loadu_si512(b + 64 * (g / 2));
    const __m512i low = g % 2 ? _mm512_srli_epi16(nibbles, 2) : _mm512_slli_epi16(nibbles, 2);
    const __m512i bits = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)(b + 128 + 32 * (g / 2))));
    const __m512i turn = _mm512_add_epi64(lower, _mm512_set1_epi64(g % 2 ? 0 : 4));
    const __m512i q = maskedXor(_mm512_rolv_epi64(bits, turn), 0xc0, maskedXor(low, 0x3c, _mm512_set1_epi8((char)128)));
    const __m512i place = _mm512_add_epi32(places, _mm512_set1_epi32(4 * g));
    _mm512_storeu_si512(to + 64 * g, toLevels<8>(q, _mm512_permutexvar_epi32(place, ratios), _mm512_set1_epi16(128)));
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
  for (int i = 0; i < 4; ++i) _mm_storeu_si128((__m128i*)(to + 16 * i), toBytes(vmul(v[i], inverse)));
  return max / 127;
}
