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

// Panels hold levels without sign.
PG_INLINE V panelWord(V v) {
  return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(v), _mm512_set1_epi8((char)128)));
}
