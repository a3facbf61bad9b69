// The vector words of vector_kernels.h and vector_tiles.h in AVX2, FMA and F16C. Included between PG_ISA_BEGIN and
// PG_ISA_END after <immintrin.h>.
#pragma once

typedef __m256 V;
constexpr int kLanes = 8;

PG_INLINE __m256i firstLanes(int64_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(int(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

PG_INLINE V vload(const float* p) { return _mm256_loadu_ps(p); }
PG_INLINE void vstore(float* p, V v) { _mm256_storeu_ps(p, v); }
PG_INLINE V vset(float f) { return _mm256_set1_ps(f); }
PG_INLINE V vzero() { return _mm256_setzero_ps(); }
PG_INLINE V vadd(V a, V b) { return _mm256_add_ps(a, b); }
PG_INLINE V vsub(V a, V b) { return _mm256_sub_ps(a, b); }
PG_INLINE V vmul(V a, V b) { return _mm256_mul_ps(a, b); }
PG_INLINE V vdiv(V a, V b) { return _mm256_div_ps(a, b); }
PG_INLINE V vmax(V a, V b) { return _mm256_max_ps(a, b); }
PG_INLINE V vmin(V a, V b) { return _mm256_min_ps(a, b); }
PG_INLINE V vfma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }    // a * b + c
PG_INLINE V vfnma(V a, V b, V c) { return _mm256_fnmadd_ps(a, b, c); }  // c - a * b
PG_INLINE V vabs(V a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
PG_INLINE V vround(V a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// a * 2^n for whole n in [-126, 127]
PG_INLINE V vscale2(V a, V n) {
  return _mm256_mul_ps(
      a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23)));
}
// x < bound ? a : b
PG_INLINE V vselectLess(V x, V bound, V a, V b) { return _mm256_blendv_ps(b, a, _mm256_cmp_ps(x, bound, _CMP_LT_OQ)); }

// The first n < kLanes values; lanes beyond hold zero.
PG_INLINE V vloadFirst(const float* p, int64_t n) { return _mm256_maskload_ps(p, firstLanes(n)); }
PG_INLINE void vstoreFirst(float* p, V v, int64_t n) { _mm256_maskstore_ps(p, firstLanes(n), v); }
// a where lane < n, else b
PG_INLINE V vfirst(V a, V b, int64_t n) { return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(firstLanes(n))); }

PG_INLINE float vsum(V v) {
  const __m128 q = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}
PG_INLINE float vmaxAcross(V v) {
  const __m128 q = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 d = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(d, _mm_movehdup_ps(d)));
}

PG_INLINE V vloadF16(const uint16_t* p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)); }
PG_INLINE V vloadBf16(const uint16_t* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
}
PG_INLINE V vloadI8(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)p)));
}
// (byte >> shift) & mask of kLanes bytes
PG_INLINE V vloadBits(const uint8_t* p, int shift, int mask) {
  const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)p));
  return _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(bytes, shift), _mm256_set1_epi32(mask)));
}
PG_INLINE void vstoreF16(uint16_t* p, V v) {
  _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
PG_INLINE float vhalf(const void* p) {   // one f16
  uint16_t bits;
  memcpy(&bits, p, 2);
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));   // MSVC has no _cvtsh_ss
}
PG_INLINE void vprefetch(const void* p) { _mm_prefetch((const char*)p, _MM_HINT_T0); }

// --- integers, for vector_attention16.h ---
typedef __m256i I;
PG_INLINE I vzeroI() { return _mm256_setzero_si256(); }
PG_INLINE I vloadI(const int16_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
PG_INLINE V vtoF32(I v) { return _mm256_cvtepi32_ps(v); }
// kLanes values, rounded
PG_INLINE void vstoreI16(int16_t* p, V v) {
  const __m256i q = _mm256_cvtps_epi32(v);
  _mm_storeu_si128((__m128i*)p, _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1)));
}
// a[0], b[0], a[1], b[1] ... of kLanes values each
PG_INLINE void vstorePairs(int16_t* p, const int16_t* a, const int16_t* b) {
  const __m128i x = _mm_loadu_si128((const __m128i*)a), y = _mm_loadu_si128((const __m128i*)b);
  _mm_storeu_si128((__m128i*)p, _mm_unpacklo_epi16(x, y));
  _mm_storeu_si128((__m128i*)p + 1, _mm_unpackhi_epi16(x, y));
}
// the same two values in every lane
PG_INLINE I vsetPair(const int16_t* p) { return _mm256_castps_si256(_mm256_broadcast_ss((const float*)p)); }
// acc[i] += products of w[i]'s pairs with the pair at x, added. In assembly where possible, the pair's way to all lanes
// included: there are registers for nothing else, and gcc and clang would keep accumulators on the stack. Both products
// come before both sums, 5 % faster on Zen 3 than each with its own.
template <int kVectors>
PG_INLINE void vmultiplyAdd16(I* acc, const I* w, const int16_t* x) {
  static_assert(kVectors == 2, "written for two");
#if defined(__GNUC__) || defined(__clang__)
  I pair, product;
  __asm__(
      "vpbroadcastd %4, %2\n\tvpmaddwd %2, %5, %3\n\tvpmaddwd %2, %6, %2\n\t"
      "vpaddd %3, %0, %0\n\tvpaddd %2, %1, %1"
      : "+x"(acc[0]), "+x"(acc[1]), "=&x"(pair), "=&x"(product)
      : "m"(*(const int16_t(*)[2])x), "x"(w[0]), "x"(w[1]));
#else
  for (int i = 0; i < 2; ++i) acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(w[i], vsetPair(x)));
#endif
}

// 8 x 8
PG_INLINE void vtranspose(V* v) {
  V a[8], b[8];
  for (int i = 0; i < 8; i += 2) {
    a[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
    a[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) {
      b[i + 2 * j] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0x44);
      b[i + 2 * j + 1] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0xee);
    }
  for (int c = 0; c < 4; ++c) {
    v[c] = _mm256_permute2f128_ps(b[c], b[4 + c], 0x20);
    v[4 + c] = _mm256_permute2f128_ps(b[c], b[4 + c], 0x31);
  }
}
