// Products of unsigned weights and signed activations in AVX-VNNI, for rows8_avx2.h. Included between PG_ISA_BEGIN and
// PG_ISA_END.
#pragma once

// Per lane, the products of kCount registers with as many of activations: two chains, whose latency is half.
template <int kMost, int kCount>
PG_INLINE __m256i dotLevels(const __m256i* w, const int8_t* x) {
  const __m256i* values = (const __m256i*)x;
  __m256i a = _mm256_setzero_si256(), b = a;
  for (int i = 0; i < kCount; i += 2) {
    a = _mm256_dpbusd_avx_epi32(a, w[i], _mm256_loadu_si256(values + i));
    b = _mm256_dpbusd_avx_epi32(b, w[i + 1], _mm256_loadu_si256(values + i + 1));
  }
  return _mm256_add_epi32(a, b);
}

// Eight registers of Q8_0's signed weights, as unsigned ones
constexpr float kOffset8 = 128;   // added to the weights
PG_INLINE __m256i prepare8(__m256i w) { return _mm256_xor_si256(w, _mm256_set1_epi8((char)128)); }
PG_INLINE __m256i dot8(const __m256i* w, const int8_t* x) { return dotLevels<255, 8>(w, x); }
