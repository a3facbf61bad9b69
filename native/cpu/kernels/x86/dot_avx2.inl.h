// Products of unsigned weights and signed activations in AVX2, for rows8_avx2.h: vpmaddubsw, whose sums of two are
// added in 16 bits as long as they fit. Nothing saturates. Included between PG_ISA_BEGIN and PG_ISA_END.
#pragma once

// Per lane, the products of kCount registers of levels 0..kMost with as many of activations.
template <int kMost, int kCount>
PG_INLINE __m256i dotLevels(const __m256i* w, const int8_t* x) {
  constexpr int kFit = 32767 / (2 * 127 * kMost), kTogether = kFit < kCount ? kFit : kCount;
  static_assert(kTogether > 0 && kCount % kTogether == 0, "registers are added in equal parts");
  const __m256i one = _mm256_set1_epi16(1), *values = (const __m256i*)x;
  __m256i sums = _mm256_setzero_si256();
  for (int i = 0; i < kCount; i += kTogether) {
    __m256i part = _mm256_maddubs_epi16(w[i], _mm256_loadu_si256(values + i));
    for (int j = i + 1; j < i + kTogether; ++j)
      part = _mm256_add_epi16(part, _mm256_maddubs_epi16(w[j], _mm256_loadu_si256(values + j)));
    sums = i ? _mm256_add_epi32(sums, _mm256_madd_epi16(part, one)) : _mm256_madd_epi16(part, one);
  }
  return sums;
}

// Eight registers of Q8_0's signed weights: their signs move to the activations, since 2 * 128 * 127 just fits.
constexpr float kOffset8 = 0;   // added to the weights
PG_INLINE __m256i prepare8(__m256i w) { return w; }
PG_INLINE __m256i dot8(const __m256i* w, const int8_t* x) {
  const __m256i one = _mm256_set1_epi16(1), *values = (const __m256i*)x;
  __m256i sums = _mm256_setzero_si256();
  for (int i = 0; i < 8; ++i) {
    const __m256i pairs =
        _mm256_maddubs_epi16(_mm256_abs_epi8(w[i]), _mm256_sign_epi8(_mm256_loadu_si256(values + i), w[i]));
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, one));
  }
  return sums;
}
