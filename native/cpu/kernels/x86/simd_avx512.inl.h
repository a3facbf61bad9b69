// The vector words of vector_kernels.h and vector_tiles.h in AVX-512 (F, BW, DQ, VL). Included between PG_ISA_BEGIN
// and PG_ISA_END after <immintrin.h>.
#pragma once

typedef __m512 V;
constexpr int kLanes = 16;

PG_INLINE __mmask16 firstLanes(int64_t n) { return n >= 16 ? __mmask16(0xffff) : __mmask16((1u << n) - 1); }

PG_INLINE V vload(const float* p) { return _mm512_loadu_ps(p); }
PG_INLINE void vstore(float* p, V v) { _mm512_storeu_ps(p, v); }
PG_INLINE V vset(float f) { return _mm512_set1_ps(f); }
PG_INLINE V vzero() { return _mm512_setzero_ps(); }
PG_INLINE V vadd(V a, V b) { return _mm512_add_ps(a, b); }
PG_INLINE V vsub(V a, V b) { return _mm512_sub_ps(a, b); }
PG_INLINE V vmul(V a, V b) { return _mm512_mul_ps(a, b); }
PG_INLINE V vdiv(V a, V b) { return _mm512_div_ps(a, b); }
PG_INLINE V vmax(V a, V b) { return _mm512_max_ps(a, b); }
PG_INLINE V vmin(V a, V b) { return _mm512_min_ps(a, b); }
PG_INLINE V vfma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }    // a * b + c
PG_INLINE V vfnma(V a, V b, V c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a * b
PG_INLINE V vabs(V a) { return _mm512_abs_ps(a); }
PG_INLINE V vround(V a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// a * 2^n for whole n in [-126, 127]
PG_INLINE V vscale2(V a, V n) { return _mm512_scalef_ps(a, n); }
// x < bound ? a : b
PG_INLINE V vselectLess(V x, V bound, V a, V b) {
  return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(x, bound, _CMP_LT_OQ), b, a);
}

// The first n < kLanes values; lanes beyond hold zero.
PG_INLINE V vloadFirst(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(firstLanes(n), p); }
PG_INLINE void vstoreFirst(float* p, V v, int64_t n) { _mm512_mask_storeu_ps(p, firstLanes(n), v); }
// a where lane < n, else b
PG_INLINE V vfirst(V a, V b, int64_t n) { return _mm512_mask_blend_ps(firstLanes(n), b, a); }

// The order of additions is the same on every machine: halves, quarters, pairs.
PG_INLINE float vsum(V v) {
  const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}
PG_INLINE float vmaxAcross(V v) { return _mm512_reduce_max_ps(v); }

PG_INLINE V vloadF16(const uint16_t* p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p)); }
PG_INLINE V vloadBf16(const uint16_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
PG_INLINE V vloadI8(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p)));
}
// (byte >> shift) & mask of kLanes bytes
PG_INLINE V vloadBits(const uint8_t* p, int shift, int mask) {
  const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
  return _mm512_cvtepi32_ps(_mm512_and_si512(_mm512_srli_epi32(bytes, (unsigned)shift), _mm512_set1_epi32(mask)));
}
PG_INLINE void vstoreF16(uint16_t* p, V v) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
PG_INLINE float vhalf(const void* p) {   // one f16
  uint16_t bits;
  memcpy(&bits, p, 2);
  return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits)));   // MSVC has no _cvtsh_ss
}
PG_INLINE void vprefetch(const void* p) { _mm_prefetch((const char*)p, _MM_HINT_T0); }

// --- integers, for vector_attention16.h ---
typedef __m512i I;
PG_INLINE I vzeroI() { return _mm512_setzero_si512(); }
PG_INLINE I vloadI(const int16_t* p) { return _mm512_loadu_si512(p); }
PG_INLINE V vtoF32(I v) { return _mm512_cvtepi32_ps(v); }
// kLanes values, rounded
PG_INLINE void vstoreI16(int16_t* p, V v) {
  _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(v)));
}
// a[0], b[0], a[1], b[1] ... of kLanes values each
PG_INLINE void vstorePairs(int16_t* p, const int16_t* a, const int16_t* b) {
  const I low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)a)),
          high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)b));
  _mm512_storeu_si512(p, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}
// the same two values in every lane
PG_INLINE I vsetPair(const int16_t* p) {
  int32_t two;
  memcpy(&two, p, 4);
  return _mm512_set1_epi32(two);
}
// acc[i] += products of w[i]'s pairs with the pair at x, added. In assembly where possible: gcc keeps the intrinsic's
// accumulators on the stack.
template <int kVectors>
PG_INLINE void vmultiplyAdd16(I* acc, const I* w, const int16_t* x) {
  const I pair = vsetPair(x);
  PG_UNROLL
  for (int i = 0; i < kVectors; ++i) {
#if defined(__GNUC__) || defined(__clang__)
    __asm__("vpdpwssd %2, %1, %0" : "+v"(acc[i]) : "v"(w[i]), "v"(pair));
#else
    acc[i] = _mm512_dpwssd_epi32(acc[i], w[i], pair);
#endif
  }
}

// 16 x 16
PG_INLINE void vtranspose(V* v) {
  V a[16], b[16];
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
    a[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      const __m512d lo = _mm512_castps_pd(a[i + j]), hi = _mm512_castps_pd(a[i + j + 2]);
      b[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(lo, hi));
      b[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(lo, hi));
    }
  // b[4 * g + c], 128-bit lane l: column 4 * l + c of rows 4 * g ..
  for (int c = 0; c < 4; ++c) {
    const V p = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x88), q = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xdd);
    const V r = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x88), s = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xdd);
    v[c] = _mm512_shuffle_f32x4(p, r, 0x88);
    v[8 + c] = _mm512_shuffle_f32x4(p, r, 0xdd);
    v[4 + c] = _mm512_shuffle_f32x4(q, s, 0x88);
    v[12 + c] = _mm512_shuffle_f32x4(q, s, 0xdd);
  }
}
