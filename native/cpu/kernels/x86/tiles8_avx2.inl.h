// Tiles of quantized weights in AVX2: 16 weight rows x 6 tokens in 16-bit integers. Included between PG_ISA_BEGIN and
// PG_ISA_END.
//
// vpmaddubsw would saturate with 8-bit weights, and undoing signs costs what it saves; vpmaddwd on 16 bits needs as
// many instructions and leaves room for values of 12 bits, and of 14 for weights, whose rounding does not matter.
// Panels are [k / 2][16 rows][2], tokens [k / 2][6][2].
#pragma once

constexpr int kLevels16 = 2047;   // 64 products with 64 * 128, the largest weight, fit 31 bits

static void tile8(float* out, const uint8_t* panel, const float* rowScales, const uint8_t* tokens,
                  const float* tokenScales, const int32_t* offsets, int64_t groups) {
  (void)offsets;   // of unsigned weights: there are none here
  for (; groups > 0; --groups, rowScales += 16, tokenScales += 6) {
    I acc[6][2], w[2] = {_mm256_load_si256((const I*)panel), _mm256_load_si256((const I*)panel + 1)};
    PG_UNROLL
    for (int t = 0; t < 6; ++t) PG_UNROLL
    for (int i = 0; i < 2; ++i) acc[t][i] = _mm256_madd_epi16(w[i], vsetPair((const int16_t*)(tokens + 4 * t)));
    for (int s = 1; s < pg::kTileGroup / 2; ++s) {
      panel += 64, tokens += 24;
      w[0] = _mm256_load_si256((const I*)panel), w[1] = _mm256_load_si256((const I*)panel + 1);
      PG_UNROLL
      for (int t = 0; t < 6; ++t) vmultiplyAdd16<2>(acc[t], w, (const int16_t*)(tokens + 4 * t));
    }
    panel += 64, tokens += 24;
    V low = vload(rowScales), high = vload(rowScales + 8);
#if defined(__GNUC__) || defined(__clang__)
    // gcc would load the scales for every token, and keep `out` on the stack as well and store twice
    __asm__("" : "+x"(low), "+x"(high), "+r"(out) : : "memory");
#endif
    PG_UNROLL
    for (int t = 0; t < 6; ++t) {
      const V x = vset(tokenScales[t]);
      vstore(out + 16 * t, vfma(vmul(low, x), vtoF32(acc[t][0]), vload(out + 16 * t)));
      vstore(out + 16 * t + 8, vfma(vmul(high, x), vtoF32(acc[t][1]), vload(out + 16 * t + 8)));
    }
  }
}

// Up to 64 numbers as 16-bit levels of one scale, which is returned.
PG_INLINE float levels(const float* x, int64_t n, int16_t* to) {
  V v[8], top = vzero();
  for (int i = 0; i < 8; ++i) {
    v[i] = n - 8 * i >= 8 ? vload(x + 8 * i) : n - 8 * i <= 0 ? vzero() : vloadFirst(x + 8 * i, n - 8 * i);
    top = vmax(top, vabs(v[i]));
  }
  const float max = vmaxAcross(top);
  const V inverse = vset(max > 0 ? kLevels16 / max : 0);
  for (int i = 0; i < 8; i += 2) {
    const __m256i q =
        _mm256_packs_epi32(_mm256_cvtps_epi32(vmul(v[i], inverse)), _mm256_cvtps_epi32(vmul(v[i + 1], inverse)));
    _mm256_storeu_si256((__m256i*)(to + 8 * i), _mm256_permute4x64_epi64(q, 0xd8));
  }
  return max / kLevels16;
}

static void packTokens8(const float* x, int64_t stride, int64_t count, int64_t k, uint8_t* tokens, float* scales,
                        int32_t* offsets) {
  (void)offsets;
  for (int64_t c = 0; c < k; c += pg::kTileGroup, tokens += pg::kTileGroup * 12, scales += 6) {
    int32_t pairs[6][32];
    for (int64_t t = 0; t < 6; ++t) {
      scales[t] = t < count ? levels(x + t * stride + c, k - c, (int16_t*)pairs[t]) : 0;
      if (t >= count) memset(pairs[t], 0, sizeof pairs[t]);
    }
    for (int i = 0; i < 32; ++i)
      for (int t = 0; t < 6; ++t) memcpy(tokens + 24 * i + 4 * t, &pairs[t][i], 4);
  }
}

// ---- weights: 64ths of a byte's steps ----

typedef int16_t Level;
constexpr float kMostLevel = kLevels16, kSteps = 64;
PG_INLINE V panelWord(V v) { return v; }
PG_INLINE void storeLevels(Level* to, __m256i low, __m256i high) {
  _mm256_storeu_si256((__m256i*)to, _mm256_permute2x128_si256(low, high, 0x20));
  _mm256_storeu_si256((__m256i*)(to + 16), _mm256_permute2x128_si256(low, high, 0x31));
}
PG_INLINE float unpackF32(const float* w, int64_t n, Level* to) { return levels(w, n, to); }

// Of tiles of few bits (levels_avx2.inl.h); the tiles above need twice as many operations.
static double peak8(int64_t rounds) {
  __m256i acc[10], a = _mm256_set1_epi8((char)rounds);
  for (int i = 0; i < 10; ++i) acc[i] = _mm256_set1_epi16((short)i);
  for (int64_t n = 0; n < rounds; ++n) {
    PG_UNROLL
    for (int i = 0; i < 10; ++i) {
#if defined(__GNUC__) || defined(__clang__)
      __asm__ volatile("" : "+x"(a));   // or the product would leave the loop
#endif
      acc[i] = _mm256_add_epi16(acc[i], _mm256_maddubs_epi16(a, a));
    }
  }
  for (int i = 1; i < 10; ++i) acc[0] = _mm256_or_si256(acc[0], acc[i]);
  return (double)rounds * 10 * 64 + (_mm256_extract_epi32(acc[0], 0) == 12345);
}
