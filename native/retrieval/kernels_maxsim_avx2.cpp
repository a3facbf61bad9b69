// AVX2 with FMA.
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "cpu/kernels/common/isa.h"
#include "retrieval/kernels.h"

PG_ISA_BEGIN("avx2,fma,f16c")
namespace pg {
namespace {

#include "cpu/kernels/x86/simd_avx2.inl.h"

constexpr int kTile = 6, kGroup = 2;
#define PG_WIDEN   // 8-bit multiply-adds saturate; 16-bit ones do not, at half the width
typedef int16_t Q;
typedef int16_t P;
typedef __m256i W;
typedef __m256i X;

PG_INLINE W wload(const Q* p) { return _mm256_loadu_si256((const __m256i*)p); }
PG_INLINE X wspread(const P* p) {
  int32_t pair;
  memcpy(&pair, p, 4);
  return _mm256_set1_epi32(pair);
}
PG_INLINE W wmac(W sums, W query, X page) { return _mm256_add_epi32(sums, _mm256_madd_epi16(query, page)); }
PG_INLINE W wstart(const Q*, int64_t) { return _mm256_setzero_si256(); }
PG_INLINE V wfloats(W sums) { return _mm256_cvtepi32_ps(sums); }

#include "retrieval/maxsim_tiles.h"

constexpr int64_t kBitLanes = 4;
typedef __m256i B;

PG_INLINE B bload(const uint64_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
PG_INLINE void bstore(int64_t* p, B x) { _mm256_storeu_si256((__m256i*)p, x); }
PG_INLINE B bspread(int64_t word) { return _mm256_set1_epi64x(word); }
PG_INLINE B bxor(B a, B b) { return _mm256_xor_si256(a, b); }
// By table of half bytes.
PG_INLINE B bones(B x) {
  const B table =
      _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const B half = _mm256_set1_epi8(15);
  return _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(x, half)),
                         _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), half)));
}
PG_INLINE B baddBytes(B a, B b) { return _mm256_add_epi8(a, b); }
PG_INLINE B baddLanes(B a, B b) { return _mm256_add_epi64(a, b); }
PG_INLINE B bsumBytes(B x) { return _mm256_sad_epu8(x, _mm256_setzero_si256()); }
// 32-bit minima: the upper halves are zeros.
PG_INLINE B bleast(B a, B b) { return _mm256_min_epi32(a, b); }

#include "retrieval/maxsim_bits.h"

}  // namespace
}  // namespace pg
PG_ISA_END

namespace pg {

const MaxSimKernels kMaxSimAvx2 = {
    .isa = "avx2", .lanes = kLanes, .f32 = f32, .group = kGroup, .int8 = int8, .bitLanes = kBitLanes, .bits = bits};

}  // namespace pg
#endif
