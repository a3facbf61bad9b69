// AVX-512 with VNNI.
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "cpu/kernels/common/isa.h"
#include "retrieval/kernels.h"

#if defined(__GNUC__) && !defined(__clang__)
// gcc 12 warns inside its own intrinsics.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

PG_ISA_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
namespace pg {
namespace {

#include "cpu/kernels/x86/simd_avx512.inl.h"

constexpr int kTile = 12, kGroup = 4;
typedef int8_t Q;
typedef int8_t P;
typedef __m512i W;
typedef __m512i X;

// The instruction multiplies unsigned by signed bytes: the page's values are taken plus 128, which sums begin without.
PG_INLINE W wload(const Q* p) { return _mm512_loadu_si512(p); }
PG_INLINE X wspread(const P* p) {
  uint32_t four;
  memcpy(&four, p, 4);
  return _mm512_set1_epi32(int32_t(four ^ 0x80808080u));
}
PG_INLINE W wmac(W sums, W query, X page) { return _mm512_dpbusd_epi32(sums, page, query); }
PG_INLINE W wstart(const Q* panel, int64_t groups) {
  W sums = _mm512_setzero_si512();
  for (int64_t g = 0; g < groups; ++g)
    sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(char(0x80)), wload(panel + g * kLanes * kGroup));
  return _mm512_sub_epi32(_mm512_setzero_si512(), sums);
}
PG_INLINE V wfloats(W sums) { return _mm512_cvtepi32_ps(sums); }

#include "retrieval/maxsim_tiles.h"

constexpr int64_t kBitLanes = 8;
typedef __m512i B;

PG_INLINE B bload(const uint64_t* p) { return _mm512_loadu_si512(p); }
PG_INLINE void bstore(int64_t* p, B x) { _mm512_storeu_si512(p, x); }
PG_INLINE B bspread(int64_t word) { return _mm512_set1_epi64(word); }
PG_INLINE B bxor(B a, B b) { return _mm512_xor_si512(a, b); }
// By table of half bytes; VPOPCNT is not part of what the table asks for.
PG_INLINE B bones(B x) {
  const B table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
  const B half = _mm512_set1_epi8(15);
  return _mm512_add_epi8(_mm512_shuffle_epi8(table, _mm512_and_si512(x, half)),
                         _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(x, 4), half)));
}
PG_INLINE B baddBytes(B a, B b) { return _mm512_add_epi8(a, b); }
PG_INLINE B baddLanes(B a, B b) { return _mm512_add_epi64(a, b); }
PG_INLINE B bsumBytes(B x) { return _mm512_sad_epu8(x, _mm512_setzero_si512()); }
PG_INLINE B bleast(B a, B b) { return _mm512_min_epi64(a, b); }

#include "retrieval/maxsim_bits.h"

}  // namespace
}  // namespace pg
PG_ISA_END

namespace pg {

const MaxSimKernels kMaxSimAvx512Vnni = {.isa = "avx512vnni",
                                         .lanes = kLanes,
                                         .f32 = f32,
                                         .group = kGroup,
                                         .int8 = int8,
                                         .bitLanes = kBitLanes,
                                         .bits = bits};

}  // namespace pg
#endif
