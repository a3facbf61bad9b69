// 8-bit tiles in AVX-512 VNNI: 32 weight rows x 12 tokens. Included between PG_ISA_BEGIN and PG_ISA_END.
//
// Weights lie in a panel as unsigned bytes (value + 128), [k / 4][32 rows][4]; activations as signed bytes,
// [k / 4][12 tokens][4], broadcast from memory. Each accumulator starts at -128 * (sum of its activations), so that
// the offset of the weights costs nothing. Every group of kTileGroup columns, sums are converted, scaled and added to
// the f32 tile in the first-level cache: 5 operations an accumulator for 16 multiplications, spread among the last of
// them.
#pragma once

#define PG_STR_(x) #x
#define PG_STR(x) PG_STR_(x)

#if defined(__GNUC__) || defined(__clang__)
// One loop in assembly: gcc 12 keeps arrays of vpdpbusd accumulators on the stack and is three times slower.
// zmm(8 + 2t), zmm(9 + 2t): rows 0..15 and 16..31 of token t.
#define PG_START(t, a, b) "vpbroadcastd 4*" #t "(%[off]), %%zmm" #a "\n\tvmovdqa32 %%zmm" #a ", %%zmm" #b "\n\t"
#define PG_TOKEN(s, t, a, b)                                                           \
  "vpbroadcastd 48*" #s "+4*" #t "(%[x]), %%zmm2\n\tvpdpbusd %%zmm2, %%zmm0, %%zmm" #a \
  "\n\tvpdpbusd %%zmm2, %%zmm1, %%zmm" #b "\n\t"
#define PG_STEP(s)                                                                                       \
  "vmovdqu64 128*" #s "(%[w]), %%zmm0\n\tvmovdqu64 64+128*" #s "(%[w]), %%zmm1\n\t" PG_TOKEN(s, 0, 8, 9) \
      PG_TOKEN(s, 1, 10, 11) PG_TOKEN(s, 2, 12, 13) PG_TOKEN(s, 3, 14, 15) PG_TOKEN(s, 4, 16, 17)        \
          PG_TOKEN(s, 5, 18, 19) PG_TOKEN(s, 6, 20, 21) PG_TOKEN(s, 7, 22, 23) PG_TOKEN(s, 8, 24, 25)    \
              PG_TOKEN(s, 9, 26, 27) PG_TOKEN(s, 10, 28, 29) PG_TOKEN(s, 11, 30, 31)
// A token's last products and, while those of the next tokens keep the multipliers busy, its way to the tile
#define PG_LAST(t, a, b)                                                                                       \
  PG_TOKEN(3, t, a, b)                                                                                         \
  "vbroadcastss 4*" #t                                                                                         \
  "(%[xs]), %%zmm7\n\tvmulps %%zmm7, %%zmm4, %%zmm6\n\tvmulps %%zmm7, %%zmm5, %%zmm7\n\t"                      \
  "vcvtdq2ps %%zmm" #a ", %%zmm" #a "\n\tvcvtdq2ps %%zmm" #b ", %%zmm" #b                                      \
  "\n\t"                                                                                                       \
  "vfmadd213ps 128*" #t "(%[out]), %%zmm6, %%zmm" #a "\n\tvfmadd213ps 128*" #t "+64(%[out]), %%zmm7, %%zmm" #b \
  "\n\t"                                                                                                       \
  "vmovups %%zmm" #a ", 128*" #t "(%[out])\n\tvmovups %%zmm" #b ", 128*" #t "+64(%[out])\n\t"

static void tile8(float* out, const uint8_t* panel, const float* rowScales, const uint8_t* tokens,
                  const float* tokenScales, const int32_t* offsets, int64_t groups) {
  if (groups <= 0) return;
  int64_t steps;
  __asm__ volatile(
      ".p2align 4\n1:\n\t"
      PG_START(0, 8, 9) PG_START(1, 10, 11) PG_START(2, 12, 13) PG_START(3, 14, 15) PG_START(4, 16, 17)
      PG_START(5, 18, 19) PG_START(6, 20, 21) PG_START(7, 22, 23) PG_START(8, 24, 25) PG_START(9, 26, 27)
      PG_START(10, 28, 29) PG_START(11, 30, 31)
      "mov %[count], %[steps]\n\t"
      ".p2align 4\n2:\n\t"
      PG_STEP(0) PG_STEP(1) PG_STEP(2) PG_STEP(3)
      "add $512, %[w]\n\tadd $192, %[x]\n\tdec %[steps]\n\tjnz 2b\n\t"
      "vmovups (%[ws]), %%zmm4\n\tvmovups 64(%[ws]), %%zmm5\n\t"
      PG_STEP(0) PG_STEP(1) PG_STEP(2)
      "vmovdqu64 384(%[w]), %%zmm0\n\tvmovdqu64 448(%[w]), %%zmm1\n\t"
      PG_LAST(0, 8, 9) PG_LAST(1, 10, 11) PG_LAST(2, 12, 13) PG_LAST(3, 14, 15) PG_LAST(4, 16, 17) PG_LAST(5, 18, 19)
      PG_LAST(6, 20, 21) PG_LAST(7, 22, 23) PG_LAST(8, 24, 25) PG_LAST(9, 26, 27) PG_LAST(10, 28, 29)
      PG_LAST(11, 30, 31)
      "add $512, %[w]\n\tadd $192, %[x]\n\tadd $128, %[ws]\n\t"
      "add $48, %[xs]\n\tadd $48, %[off]\n\tdec %[groups]\n\tjnz 1b"
      : [w] "+r"(panel), [ws] "+r"(rowScales), [x] "+r"(tokens), [xs] "+r"(tokenScales), [off] "+r"(offsets),
        [groups] "+r"(groups), [steps] "=&r"(steps)
      : [out] "r"(out), [count] "i"(pg::kTileGroup / 16 - 1)
      : "memory", "cc", "zmm0", "zmm1", "zmm2", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9", "zmm10", "zmm11",
        "zmm12", "zmm13", "zmm14", "zmm15", "zmm16", "zmm17", "zmm18", "zmm19", "zmm20", "zmm21", "zmm22", "zmm23",
        "zmm24", "zmm25", "zmm26", "zmm27", "zmm28", "zmm29", "zmm30", "zmm31");
}

#define PG_PEAK(a) "vpdpbusd %%zmm0, %%zmm1, %%zmm" #a "\n\t"
static double peak8(int64_t rounds) {
  int64_t n = rounds;
  __asm__ volatile("vpxord %%zmm0, %%zmm0, %%zmm0\n\tvpxord %%zmm1, %%zmm1, %%zmm1\n\t.p2align 4\n1:\n\t" PG_PEAK(8)
                       PG_PEAK(9) PG_PEAK(10) PG_PEAK(11) PG_PEAK(12) PG_PEAK(13) PG_PEAK(14) PG_PEAK(15) PG_PEAK(16)
                           PG_PEAK(17) PG_PEAK(18) PG_PEAK(19) PG_PEAK(20) PG_PEAK(21) PG_PEAK(22) PG_PEAK(23)
                               PG_PEAK(24) PG_PEAK(25) PG_PEAK(26) PG_PEAK(27) PG_PEAK(28) PG_PEAK(29) PG_PEAK(30)
                                   PG_PEAK(31) "dec %[n]\n\tjnz 1b"
                   : [n] "+r"(n)
                   :
                   : "cc", "zmm0", "zmm1", "zmm8", "zmm9", "zmm10", "zmm11", "zmm12", "zmm13", "zmm14", "zmm15",
                     "zmm16", "zmm17", "zmm18", "zmm19", "zmm20", "zmm21", "zmm22", "zmm23", "zmm24", "zmm25", "zmm26",
                     "zmm27", "zmm28", "zmm29", "zmm30", "zmm31");
  return (double)rounds * 24 * 128;
}
#else
static double peak8(int64_t rounds) {
  __m512i acc[24], a = _mm512_set1_epi8((char)rounds);
  for (int i = 0; i < 24; ++i) acc[i] = a;
  for (int64_t n = 0; n < rounds; ++n)
    for (int i = 0; i < 24; ++i) acc[i] = _mm512_dpbusd_epi32(acc[i], a, a);
  int32_t sum = 0;
  for (int i = 0; i < 24; ++i) sum |= _mm512_reduce_or_epi32(acc[i]);
  return (double)rounds * 24 * 128 + (sum == 1);
}

static void tile8(float* out, const uint8_t* panel, const float* rowScales, const uint8_t* tokens,
                  const float* tokenScales, const int32_t* offsets, int64_t groups) {
  for (; groups > 0; --groups, rowScales += 32, tokenScales += 12, offsets += 12) {
    __m512i a[12], b[12];
    for (int t = 0; t < 12; ++t) a[t] = b[t] = _mm512_set1_epi32(offsets[t]);
    for (int s = 0; s < pg::kTileGroup / 4; ++s, panel += 128, tokens += 48) {
      const __m512i w0 = _mm512_loadu_si512(panel), w1 = _mm512_loadu_si512(panel + 64);
      for (int t = 0; t < 12; ++t) {
        int32_t four;
        memcpy(&four, tokens + 4 * t, 4);
        a[t] = _mm512_dpbusd_epi32(a[t], w0, _mm512_set1_epi32(four));
        b[t] = _mm512_dpbusd_epi32(b[t], w1, _mm512_set1_epi32(four));
      }
    }
    for (int t = 0; t < 12; ++t) {
      const V xs = vset(tokenScales[t]);
      vstore(out + 32 * t, vfma(vmul(vload(rowScales), xs), _mm512_cvtepi32_ps(a[t]), vload(out + 32 * t)));
      vstore(out + 32 * t + 16,
             vfma(vmul(vload(rowScales + 16), xs), _mm512_cvtepi32_ps(b[t]), vload(out + 32 * t + 16)));
    }
  }
}
#endif

// 64 numbers to signed bytes, in order.
PG_INLINE __m512i narrow(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i bytes = _mm512_packs_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));  // within 128-bit lanes
  return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), bytes);
}

static void packTokens8(const float* x, int64_t stride, int64_t count, int64_t k, uint8_t* tokens, float* scales,
                        int32_t* offsets) {
  const __mmask16 twelve = 0xfff;
  for (int64_t c = 0; c < k; c += pg::kTileGroup, tokens += pg::kTileGroup * 12, scales += 12, offsets += 12) {
    const float* columns = x + c;
    const int64_t n = k - c < pg::kTileGroup ? k - c : pg::kTileGroup;
    float top[16] = {0}, inverse[16];
    for (int64_t t = 0; t < count; ++t) {
      V m = vzero();
      for (int i = 0; i < 64; i += 16)
        if (n > i) m = vmax(m, vabs(vloadFirst(columns + t * stride + i, n - i)));
      top[t] = vmaxAcross(m);
    }
    const V tops = vload(top);
    _mm512_mask_storeu_ps(scales, twelve, vdiv(tops, vset(127)));
    vstore(inverse, _mm512_maskz_div_ps(_mm512_cmp_ps_mask(tops, vzero(), _CMP_GT_OQ), vset(127), tops));
    V v[16];
    for (int64_t t = 0; t < 16; ++t) {
      __m512i q[4];
      for (int i = 0; i < 4; ++i)
        q[i] = t < count && n > 16 * i
                   ? _mm512_cvtps_epi32(vmul(vloadFirst(columns + t * stride + 16 * i, n - 16 * i), vset(inverse[t])))
                   : _mm512_setzero_si512();
      v[t] = _mm512_castsi512_ps(narrow(q[0], q[1], q[2], q[3]));
    }
    vtranspose(v);
    __m512i sums = _mm512_setzero_si512();
    for (int i = 0; i < 16; ++i) {
      sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(1), _mm512_castps_si512(v[i]));
      _mm512_mask_storeu_epi32(tokens + 48 * i, twelve, _mm512_castps_si512(v[i]));
    }
    _mm512_mask_storeu_epi32(offsets, twelve, _mm512_slli_epi32(_mm512_sub_epi32(_mm512_setzero_si512(), sums), 7));
  }
}

// ---- weights: a row's group of 64 columns as signed bytes with one scale ----

typedef int8_t Level;
PG_INLINE V panelWord(V v) {
  return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(v), _mm512_set1_epi8((char)128)));
}

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
