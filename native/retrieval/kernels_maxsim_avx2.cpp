// AVX2 with FMA.
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "cpu/isa.h"
#include "retrieval/kernels.h"

PG_ISA_BEGIN("avx2,fma,f16c")
namespace pg {
namespace {

#include "cpu/simd_avx2.h"

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

// Ones per byte, by table of half bytes.
PG_INLINE __m256i onesPerByte(__m256i x) {
  const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
  const __m256i half = _mm256_set1_epi8(15);
  return _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(x, half)),
                         _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(x, 4), half)));
}

constexpr int64_t kBitLanes = 4;
constexpr int64_t kByteWords = 31;   // words whose ones a byte can count

static void bits(const uint64_t* query, int64_t panels, const uint8_t* page, int64_t tokens, int64_t words, int32_t* best) {
  for (int64_t p = 0; p < panels; ++p) {
    const uint64_t* panel = query + p * words * kBitLanes;
    __m256i least = _mm256_set1_epi64x(INT32_MAX);
    for (int64_t t = 0; t < tokens; ++t) {
      const uint8_t* row = page + t * words * 8;
      __m256i distance = _mm256_setzero_si256();
      for (int64_t w = 0; w < words;) {
        const int64_t end = words - w > kByteWords ? w + kByteWords : words;
        __m256i bytes = _mm256_setzero_si256();
        for (; w < end; ++w) {
          int64_t word;
          memcpy(&word, row + w * 8, 8);
          const __m256i differ = _mm256_xor_si256(_mm256_loadu_si256((const __m256i*)(panel + w * kBitLanes)), _mm256_set1_epi64x(word));
          bytes = _mm256_add_epi8(bytes, onesPerByte(differ));
        }
        distance = _mm256_add_epi64(distance, _mm256_sad_epu8(bytes, _mm256_setzero_si256()));
      }
      least = _mm256_min_epi32(least, distance);   // the upper halves are zeros
    }
    int64_t lanes[kBitLanes];
    _mm256_storeu_si256((__m256i*)lanes, least);
    for (int64_t i = 0; i < kBitLanes; ++i) best[p * kBitLanes + i] = int32_t(lanes[i]);
  }
}

}  // namespace
}  // namespace pg
PG_ISA_END

namespace pg {

const MaxSimKernels kMaxSimAvx2 = {
  .isa = "avx2", .lanes = kLanes, .f32 = f32, .group = kGroup, .int8 = int8, .bitLanes = kBitLanes, .bits = bits};

}  // namespace pg
#endif
