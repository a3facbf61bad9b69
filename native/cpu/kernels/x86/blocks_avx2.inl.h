// Blocks of the quantized types in registers of 256 bits, for AVX2 and AVX-VNNI: scales, numbers of 4 to 6 bits, and
// whole super-blocks as numbers of one scale per 64 columns. Included between PG_ISA_BEGIN and PG_ISA_END, after the
// including file's
//   Level, kSteps                 what a panel's weights are; how many of its steps make one of 127 of a byte
//   storeLevels(to, low, high)    32 of them from 16-bit numbers in steps of 1/64 of a byte's, columns 0-7 and 16-23 in
//                                 `low`, 8-15 and 24-31 in `high`
#pragma once

PG_INLINE __m128i load16(const uint8_t* p) { return _mm_loadu_si128((const __m128i*)p); }
PG_INLINE __m256i load32(const uint8_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
PG_INLINE __m256i loadTwo(const uint8_t* low, const uint8_t* high) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load16(low)), load16(high), 1);
}
PG_INLINE __m256i nibbles(__m256i q) { return _mm256_and_si256(q, _mm256_set1_epi8(15)); }

// The order of groups of 32 columns in a register's lanes that the decode kernels use: neighbours in both halves are
// what the nibbles of one byte hold in Q4_K and Q5_K.
PG_INLINE __m256i laneGroups() { return _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7); }
PG_INLINE __m128i inLanes(__m128i words) {
  return _mm_shuffle_epi8(words, _mm_setr_epi8(0, 1, 8, 9, 4, 5, 12, 13, 2, 3, 10, 11, 6, 7, 14, 15));
}
PG_INLINE __m256i inOrder() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }

// The f16 scales of eight blocks, in order. Q4_0's are words 9i, which is word i of 16 bytes, and pairs of them are in
// the halves of a register; Q8_0's are words 17i, word i of 32 bytes.
template <int kBytes>
PG_INLINE __m128i scaleWords(const uint8_t* p) {
  if (kBytes == pg::kBytesQ4_0) {
    const __m256i a = _mm256_blend_epi32(load32(p), load32(p + 32), 0x22),
                  b = _mm256_blend_epi32(load32(p + 64), load32(p + 96), 0x88);
    const __m256i both = _mm256_blend_epi32(a, b, 0xcc);
    return _mm_blend_epi16(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1), 0xaa);
  }
  const __m128i a = _mm_blend_epi16(load16(p), load16(p + 32), 0x02),
                b = _mm_blend_epi16(load16(p + 64), load16(p + 96), 0x08);
  const __m128i c = _mm_blend_epi16(load16(p + 128), load16(p + 160), 0x20),
                d = _mm_blend_epi16(load16(p + 192), load16(p + 224), 0x80);
  return _mm_blend_epi16(_mm_blend_epi16(a, b, 0x0c), _mm_blend_epi16(c, d, 0xc0), 0xf0);
}

// Slopes and bases of the eight groups of a Q4_K or Q5_K super-block (they begin alike), in an order of groups: x =
// slope * q - base.
PG_INLINE void slopes(const uint8_t* row, __m256i order, V* slope, V* base) {
  const __m128i v = load16(row + 4);  // twelve bytes of 6-bit numbers, four begin in each word
  const __m128i low = _mm_and_si128(_mm_srlv_epi32(_mm_shuffle_epi32(v, 0x98), _mm_setr_epi32(0, 0, 0, 4)),
                                    _mm_setr_epi32(0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f));
  const __m128i high =
      _mm_and_si128(_mm_srli_epi32(_mm_shuffle_epi32(v, 0x50), 2), _mm_setr_epi32(0, 0x30303030, 0, 0x30303030));
  const __m256i six = _mm256_broadcastsi128_si256(_mm_or_si128(low, high)),
                place = _mm256_or_si256(order, _mm256_set1_epi32((int)0x80808000));
  uint32_t both;
  memcpy(&both, row, 4);
  const __m128 d = _mm_cvtph_ps(_mm_cvtsi32_si128((int)both));
  *slope = vmul(_mm256_cvtepi32_ps(_mm256_shuffle_epi8(six, place)), _mm256_broadcastss_ps(d));
  *base = vmul(_mm256_cvtepi32_ps(_mm256_shuffle_epi8(six, _mm256_add_epi32(place, _mm256_set1_epi32(8)))),
               _mm256_broadcastss_ps(_mm_movehdup_ps(d)));
}

// ---- groups of 32 columns as unsigned numbers ----

PG_INLINE __m256i levels4_0(const uint8_t* b) {
  const __m128i q = load16(b + 2);
  return nibbles(_mm256_inserti128_si256(_mm256_castsi128_si256(q), _mm_srli_epi16(q, 4), 1));
}

// Group g of Q4_K, and of Q5_K with its fifth bits
template <bool kFive>
PG_INLINE __m256i levels45K(const uint8_t* b, int g) {
  const __m256i two = load32(b + (kFive ? 48 : 16) + 32 * (g / 2)),
                q = nibbles(g % 2 ? _mm256_srli_epi16(two, 4) : two);
  if (!kFive) return q;
  const __m256i bit = _mm256_set1_epi8((char)(1 << g)),
                set = _mm256_cmpeq_epi8(_mm256_and_si256(load32(b + 16), bit), bit);
  return _mm256_or_si256(q, _mm256_and_si256(set, _mm256_set1_epi8(16)));
}

// Group g of Q6_K: of 128 columns, ql serves groups j and j + 2, qh all four.
PG_INLINE __m256i levels6K(const uint8_t* b, int g) {
  const int half = g / 4, j = g % 4;
  const __m256i low = load32(b + 64 * half + 32 * (j % 2));
  const __m256i high = _mm256_srl_epi16(load32(b + 128 + 32 * half), _mm_cvtsi32_si128(2 * j));
  return _mm256_or_si256(nibbles(j < 2 ? low : _mm256_srli_epi16(low, 4)),
                         _mm256_slli_epi16(_mm256_and_si256(high, _mm256_set1_epi8(3)), 4));
}

// ---- super-blocks as levels: slope * q - base in 16 bits ----

// The larger of each pair of values, in both places.
PG_INLINE V pairMax(V v) { return vmax(_mm256_moveldup_ps(v), _mm256_movehdup_ps(v)); }
PG_INLINE V inverseOf(float of, V v) {  // of / v, 0 for 0
  return _mm256_and_ps(vdiv(vset(of), v), _mm256_cmp_ps(v, vzero(), _CMP_NEQ_OQ));
}
PG_INLINE void storeScales(float* scales, V pairs, float factor) {  // one of each pair
  _mm_storeu_ps(scales, _mm256_castps256_ps128(_mm256_permutevar8x32_ps(vmul(pairs, vset(factor / kSteps)),
                                                                        _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6))));
}

// 32 numbers q * 2^kShift, which fit a byte, times factor / 2^7, less base
template <int kShift>
PG_INLINE void linear(Level* to, __m256i q, __m256i factor, __m256i base) {
  const __m256i bytes = _mm256_slli_epi16(q, kShift), zero = _mm256_setzero_si256();
  storeLevels(to, _mm256_sub_epi16(_mm256_mulhrs_epi16(_mm256_unpacklo_epi8(zero, bytes), factor), base),
              _mm256_sub_epi16(_mm256_mulhrs_epi16(_mm256_unpackhi_epi8(zero, bytes), factor), base));
}

static void unpackQ8_0(const uint8_t* b, Level* to, float* scales) {
  const V d = _mm256_cvtph_ps(scaleWords<pg::kBytesQ8_0>(b)), top = pairMax(vabs(d));
  storeScales(scales, top, 1);
  int16_t factor[8];
  vstoreI16(factor, vmul(d, inverseOf(64 * 128, top)));  // the block with the larger scale keeps its values
  for (int g = 0; g < 8; ++g)
    linear<0>(to + 32 * g, load32(b + pg::kBytesQ8_0 * g + 2), _mm256_set1_epi16(factor[g]), _mm256_setzero_si256());
}

static void unpackQ4_0(const uint8_t* b, Level* to, float* scales) {
  // sixteenths of the larger scale: its block is exact, and it decides the sign so that -8 fits a byte
  const V d = _mm256_cvtph_ps(scaleWords<pg::kBytesQ4_0>(b)), even = _mm256_moveldup_ps(d), odd = _mm256_movehdup_ps(d);
  const V larger = vselectLess(vabs(even), vabs(odd), odd, even), ratio = vmul(d, inverseOf(64 * 16, larger));
  storeScales(scales, larger, 0.0625f);
  int16_t factor[8], base[8];
  vstoreI16(factor, vmul(ratio, vset(16)));
  vstoreI16(base, vmul(ratio, vset(8)));
  for (int g = 0; g < 8; ++g)
    linear<3>(to + 32 * g, levels4_0(b + pg::kBytesQ4_0 * g), _mm256_set1_epi16(factor[g]), _mm256_set1_epi16(base[g]));
}

// Q4_K, and Q5_K with its fifth bits
template <bool kFive>
PG_INLINE void unpackQ45K(const uint8_t* b, Level* to, float* scales) {
  V slope, offset;
  slopes(b, inOrder(), &slope, &offset);
  const V reach = pairMax(vmax(vabs(offset), vabs(_mm256_fmsub_ps(slope, vset(kFive ? 31 : 15), offset)))),
          inverse = inverseOf(64 * 127, reach);
  storeScales(scales, reach, 1.0f / 127);
  int16_t factor[8], base[8];
  vstoreI16(factor, vmul(vmul(slope, inverse), vset(kFive ? 32 : 16)));
  vstoreI16(base, vmul(offset, inverse));
  for (int g = 0; g < 8; ++g)
    linear<kFive ? 2 : 3>(to + 32 * g, levels45K<kFive>(b, g), _mm256_set1_epi16(factor[g]),
                          _mm256_set1_epi16(base[g]));
}
static void unpackQ4K(const uint8_t* b, Level* to, float* scales) { unpackQ45K<false>(b, to, scales); }
static void unpackQ5K(const uint8_t* b, Level* to, float* scales) { unpackQ45K<true>(b, to, scales); }

static void unpackQ6K(const uint8_t* b, Level* to, float* scales) {
  const __m128i s = load16(b + 192);
  // the largest of four scales
  __m128i most = _mm_abs_epi8(s);
  most = _mm_max_epu8(most, _mm_srli_epi32(most, 16));
  most = _mm_and_si128(_mm_max_epu8(most, _mm_srli_epi32(most, 8)), _mm_set1_epi32(255));
  const __m128 top = _mm_cvtepi32_ps(most);
  _mm_storeu_ps(scales, _mm_mul_ps(top, _mm_set1_ps(vhalf(b + 208) * (32.0f / 127 / kSteps))));
  const V inverse = inverseOf(64 * 128 * 127.0f / 32, _mm256_castps128_ps256(top));
  int16_t factor[16];
  vstoreI16(factor, vmul(vloadI8((const int8_t*)b + 192),
                         _mm256_permutevar8x32_ps(inverse, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1))));
  vstoreI16(factor + 8, vmul(vloadI8((const int8_t*)b + 200),
                             _mm256_permutevar8x32_ps(inverse, _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3))));
  for (int g = 0; g < 8; ++g) {
    const __m256i two = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_set1_epi16(factor[2 * g])),
                                                _mm_set1_epi16(factor[2 * g + 1]), 1);
    linear<0>(to + 32 * g, _mm256_sub_epi8(levels6K(b, g), _mm256_set1_epi8(32)), two, _mm256_setzero_si256());
  }
}
