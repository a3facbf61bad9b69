// 8-bit tiles in AVX-VNNI: 16 weight rows x 6 tokens. Included between PG_ISA_BEGIN and PG_ISA_END.
//
// The scheme of tiles8_avx512.h in half the width: weights lie in a panel as unsigned bytes (value + 128), [k / 4][16
// rows][4], activations as signed bytes, [k / 4][6 tokens][4]; accumulators start at -128 * (sum of activations) and
// are converted, scaled and added to the f32 tile every kTileGroup columns.
#pragma once

#if defined(__GNUC__) || defined(__clang__)
// One loop in assembly: gcc 12 keeps arrays of vpdpbusd accumulators on the stack. %{vex%}: not AVX-512's encoding.
// ymm(4 + 2t), ymm(5 + 2t): rows 0..7 and 8..15 of token t.
#define PG_START(t, a, b) "vpbroadcastd 4*" #t "(%[off]), %%ymm" #a "\n\tvmovdqa %%ymm" #a ", %%ymm" #b "\n\t"
#define PG_TOKEN(s, t, a, b)                                                                   \
  "vpbroadcastd 24*" #s "+4*" #t "(%[x]), %%ymm2\n\t%{vex%} vpdpbusd %%ymm2, %%ymm0, %%ymm" #a \
  "\n\t"                                                                                       \
  "%{vex%} vpdpbusd %%ymm2, %%ymm1, %%ymm" #b "\n\t"
#define PG_WEIGHTS(s) "vmovdqu 64*" #s "(%[w]), %%ymm0\n\tvmovdqu 64*" #s "+32(%[w]), %%ymm1\n\t"
#define PG_STEP(s)     \
  PG_WEIGHTS(s)        \
  PG_TOKEN(s, 0, 4, 5) \
  PG_TOKEN(s, 1, 6, 7) PG_TOKEN(s, 2, 8, 9) PG_TOKEN(s, 3, 10, 11) PG_TOKEN(s, 4, 12, 13) PG_TOKEN(s, 5, 14, 15)
// A token's last products and, while those of the next tokens keep the multipliers busy, its way to the tile
#define PG_LAST(t, a, b)                                                                                     \
  PG_TOKEN(3, t, a, b)                                                                                       \
  "vbroadcastss 4*" #t                                                                                       \
  "(%[xs]), %%ymm3\n\tvmulps (%[ws]), %%ymm3, %%ymm2\n\tvmulps 32(%[ws]), %%ymm3, %%ymm3\n\t"                \
  "vcvtdq2ps %%ymm" #a ", %%ymm" #a "\n\tvcvtdq2ps %%ymm" #b ", %%ymm" #b                                    \
  "\n\t"                                                                                                     \
  "vfmadd213ps 64*" #t "(%[out]), %%ymm2, %%ymm" #a "\n\tvfmadd213ps 64*" #t "+32(%[out]), %%ymm3, %%ymm" #b \
  "\n\t"                                                                                                     \
  "vmovups %%ymm" #a ", 64*" #t "(%[out])\n\tvmovups %%ymm" #b ", 64*" #t "+32(%[out])\n\t"

static void tile8(float* out, const uint8_t* panel, const float* rowScales, const uint8_t* tokens,
                  const float* tokenScales, const int32_t* offsets, int64_t groups) {
  if (groups <= 0) return;
  int64_t steps;
  __asm__ volatile(
      ".p2align 4\n1:\n\t"
      PG_START(0, 4, 5) PG_START(1, 6, 7) PG_START(2, 8, 9) PG_START(3, 10, 11) PG_START(4, 12, 13) PG_START(5, 14, 15)
      "mov %[count], %[steps]\n\t"
      ".p2align 4\n2:\n\t"
      PG_STEP(0) PG_STEP(1) PG_STEP(2) PG_STEP(3)
      "add $256, %[w]\n\tadd $96, %[x]\n\tdec %[steps]\n\tjnz 2b\n\t"
      PG_STEP(0) PG_STEP(1) PG_STEP(2) PG_WEIGHTS(3)
      PG_LAST(0, 4, 5) PG_LAST(1, 6, 7) PG_LAST(2, 8, 9) PG_LAST(3, 10, 11) PG_LAST(4, 12, 13) PG_LAST(5, 14, 15)
      "add $256, %[w]\n\tadd $96, %[x]\n\tadd $64, %[ws]\n\t"
      "add $24, %[xs]\n\tadd $24, %[off]\n\tdec %[groups]\n\tjnz 1b"
      : [w] "+r"(panel), [ws] "+r"(rowScales), [x] "+r"(tokens), [xs] "+r"(tokenScales), [off] "+r"(offsets),
        [groups] "+r"(groups), [steps] "=&r"(steps)
      : [out] "r"(out), [count] "i"(pg::kTileGroup / 16 - 1)
      : "memory", "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
        "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");
}

#define PG_PEAK(a) "%{vex%} vpdpbusd %%ymm0, %%ymm1, %%ymm" #a "\n\t"
static double peak8(int64_t rounds) {
  int64_t n = rounds;
  __asm__ volatile("vpxor %%xmm0, %%xmm0, %%xmm0\n\tvpxor %%xmm1, %%xmm1, %%xmm1\n\t.p2align 4\n1:\n\t" PG_PEAK(4)
                       PG_PEAK(5) PG_PEAK(6) PG_PEAK(7) PG_PEAK(8) PG_PEAK(9) PG_PEAK(10) PG_PEAK(11) PG_PEAK(12)
                           PG_PEAK(13) PG_PEAK(14) PG_PEAK(15) "dec %[n]\n\tjnz 1b"
                   : [n] "+r"(n)
                   :
                   : "cc", "xmm0", "xmm1", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12",
                     "xmm13", "xmm14", "xmm15");
  return (double)rounds * 12 * 64;
}
#else
static void tile8(float* out, const uint8_t* panel, const float* rowScales, const uint8_t* tokens,
                  const float* tokenScales, const int32_t* offsets, int64_t groups) {
  for (; groups > 0; --groups, rowScales += 16, tokenScales += 6, offsets += 6) {
    __m256i a[6], b[6];
    for (int t = 0; t < 6; ++t) a[t] = b[t] = _mm256_set1_epi32(offsets[t]);
    for (int s = 0; s < pg::kTileGroup / 4; ++s, panel += 64, tokens += 24) {
      const __m256i w0 = _mm256_loadu_si256((const __m256i*)panel),
                    w1 = _mm256_loadu_si256((const __m256i*)(panel + 32));
      for (int t = 0; t < 6; ++t) {
        const __m256i x = _mm256_castps_si256(_mm256_broadcast_ss((const float*)(tokens + 4 * t)));
        a[t] = _mm256_dpbusd_avx_epi32(a[t], w0, x);
        b[t] = _mm256_dpbusd_avx_epi32(b[t], w1, x);
      }
    }
    for (int t = 0; t < 6; ++t) {
      const V xs = vset(tokenScales[t]);
      vstore(out + 16 * t, vfma(vmul(vload(rowScales), xs), _mm256_cvtepi32_ps(a[t]), vload(out + 16 * t)));
      vstore(out + 16 * t + 8, vfma(vmul(vload(rowScales + 8), xs), _mm256_cvtepi32_ps(b[t]), vload(out + 16 * t + 8)));
    }
  }
}

static double peak8(int64_t rounds) {
  __m256i acc[12], a = _mm256_set1_epi8((char)rounds);
  for (int i = 0; i < 12; ++i) acc[i] = a;
  for (int64_t n = 0; n < rounds; ++n)
    for (int i = 0; i < 12; ++i) acc[i] = _mm256_dpbusd_avx_epi32(acc[i], a, a);
  for (int i = 1; i < 12; ++i) acc[0] = _mm256_or_si256(acc[0], acc[i]);
  return (double)rounds * 12 * 64 + (_mm256_extract_epi32(acc[0], 0) == 1);
}
#endif

static void packTokens8(const float* x, int64_t stride, int64_t count, int64_t k, uint8_t* tokens, float* scales,
                        int32_t* offsets) {
  for (int64_t c = 0; c < k; c += pg::kTileGroup, scales += 6, offsets += 6) {
    alignas(32) int8_t bytes[8][64] = {{0}};
    for (int64_t t = 0; t < 6; ++t) scales[t] = t < count ? unpackF32(x + t * stride + c, k - c, bytes[t]) : 0;
    __m256i pairs = _mm256_setzero_si256();
    for (int half = 0; half < 64; half += 32) {
      V v[8];
      for (int t = 0; t < 8; ++t) v[t] = vload((const float*)(bytes[t] + half));
      vtranspose(v);
      for (int i = 0; i < 8; ++i, tokens += 24) {
        const __m256i six = _mm256_castps_si256(v[i]);
        pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(_mm256_set1_epi8(1), six));
        _mm_storeu_si128((__m128i*)tokens, _mm256_castsi256_si128(six));
        _mm_storel_epi64((__m128i*)(tokens + 16), _mm256_extracti128_si256(six, 1));
      }
    }
    int32_t sums[8];
    _mm256_storeu_si256((__m256i*)sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(-128)));
    memcpy(offsets, sums, 6 * sizeof(int32_t));
  }
}

// Panels hold levels without sign.
PG_INLINE V panelWord(V v) {
  return _mm256_castsi256_ps(_mm256_xor_si256(_mm256_castps_si256(v), _mm256_set1_epi8((char)128)));
}
