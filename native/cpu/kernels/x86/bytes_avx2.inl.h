// Levels of 8-bit tiles as signed bytes, for blocks_avx2.inl.h; f32 as such levels, activations too. Included between
// PG_ISA_BEGIN and PG_ISA_END.
#pragma once

typedef int8_t Level;
constexpr float kMostLevel = 127;

// Up to 64 numbers as bytes of one scale, which is returned.
PG_INLINE float unpackF32(const float* w, int64_t n, Level* to) {
  V v[8], top = vzero();
  for (int i = 0; i < 8; ++i) {
    v[i] = n - 8 * i >= 8 ? vload(w + 8 * i) : n - 8 * i <= 0 ? vzero() : vloadFirst(w + 8 * i, n - 8 * i);
    top = vmax(top, vabs(v[i]));
  }
  const float max = vmaxAcross(top);
  const V inverse = vset(max > 0 ? 127 / max : 0);
  for (int i = 0; i < 8; i += 4) {
    __m256i q[4];
    for (int j = 0; j < 4; ++j) q[j] = _mm256_cvtps_epi32(vmul(v[i + j], inverse));
    const __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));   // within 128-bit lanes
    _mm256_storeu_si256((__m256i*)(to + 8 * i),
                        _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
  }
  return max / 127;
}

constexpr float kSteps = 1;
PG_INLINE void storeLevels(Level* to, __m256i low, __m256i high) {
  const __m256i half = _mm256_set1_epi16(32);
  const __m256i a = _mm256_srai_epi16(_mm256_add_epi16(low, half), 6),
                b = _mm256_srai_epi16(_mm256_add_epi16(high, half), 6);
  _mm256_storeu_si256((__m256i*)to, _mm256_packs_epi16(a, b));
}
