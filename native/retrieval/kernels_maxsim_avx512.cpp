// AVX-512 with VNNI.
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "cpu/isa.h"
#include "retrieval/kernels.h"

#if defined(__GNUC__) && !defined(__clang__)
// gcc 12 warns inside its own intrinsics.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

PG_ISA_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
namespace pg {
namespace {

#include "cpu/simd_avx512.h"

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
  for (int64_t g = 0; g < groups; ++g) sums = _mm512_dpbusd_epi32(sums, _mm512_set1_epi8(char(0x80)), wload(panel + g * kLanes * kGroup));
  return _mm512_sub_epi32(_mm512_setzero_si512(), sums);
}
PG_INLINE V wfloats(W sums) { return _mm512_cvtepi32_ps(sums); }

#include "retrieval/maxsim_tiles.h"

// Ones per byte, by table of half bytes; VPOPCNT is not part of what the table asks for.
PG_INLINE __m512i onesPerByte(__m512i x) {
  const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
  const __m512i half = _mm512_set1_epi8(15);
  return _mm512_add_epi8(_mm512_shuffle_epi8(table, _mm512_and_si512(x, half)),
                         _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(x, 4), half)));
}

constexpr int64_t kBitLanes = 8;
constexpr int64_t kByteWords = 31;   // words whose ones a byte can count

static void bits(const uint64_t* query, int64_t panels, const uint8_t* page, int64_t tokens, int64_t words, int32_t* best) {
  for (int64_t p = 0; p < panels; ++p) {
    const uint64_t* panel = query + p * words * kBitLanes;
    __m512i least = _mm512_set1_epi64(INT32_MAX);
    for (int64_t t = 0; t < tokens; ++t) {
      const uint8_t* row = page + t * words * 8;
      __m512i distance = _mm512_setzero_si512();
      for (int64_t w = 0; w < words;) {
        const int64_t end = words - w > kByteWords ? w + kByteWords : words;
        __m512i bytes = _mm512_setzero_si512();
        for (; w < end; ++w) {
          int64_t word;
          memcpy(&word, row + w * 8, 8);
          bytes = _mm512_add_epi8(bytes, onesPerByte(_mm512_xor_si512(_mm512_loadu_si512(panel + w * kBitLanes), _mm512_set1_epi64(word))));
        }
        distance = _mm512_add_epi64(distance, _mm512_sad_epu8(bytes, _mm512_setzero_si512()));
      }
      least = _mm512_min_epi64(least, distance);
    }
    int64_t lanes[kBitLanes];
    _mm512_storeu_si512(lanes, least);
    for (int64_t i = 0; i < kBitLanes; ++i) best[p * kBitLanes + i] = int32_t(lanes[i]);
  }
}

}  // namespace
}  // namespace pg
PG_ISA_END

namespace pg {

const MaxSimKernels kMaxSimAvx512Vnni = {
  .isa = "avx512vnni", .lanes = kLanes, .f32 = f32, .group = kGroup, .int8 = int8, .bitLanes = kBitLanes, .bits = bits};

}  // namespace pg
#endif
