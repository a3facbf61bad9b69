#pragma once
// Kernels of late interaction: for every token of a query its best match among a page's tokens. One table per
// instruction set, beside those of cpu/kernels.h. Lanes are query tokens: a page's values are broadcast, so a maximum
// over the page needs no sum across a vector.
#include <stddef.h>
#include <stdint.h>

namespace pg {

// Values of a vector; kernels keep a few of a page's rows on the stack.
inline constexpr int64_t kMaxVectorDims = 4096;

struct MaxSimKernels {
  const char* isa;   // of the table in cpu/kernels.h that it goes with

  // Query tokens are packed in panels of `lanes`; missing ones are zeros. best[panel][lane] = the largest of the
  // products with `tokens` >= 1 rows of the page.
  int64_t lanes;
  // query: [panel][dims][lane]; page: [tokens][dims]
  void (*f32)(const float* query, int64_t panels, const float* page, int64_t tokens, int64_t dims, float* best);
  // query: [panel][dims / group, rounded up][lane][group], int8_t where group is 4, else int16_t; scales: of the page's
  // rows. The products are exact integers until the scale.
  int64_t group;
  void (*int8)(const void* query, int64_t panels, const int8_t* page, const float* scales, int64_t tokens, int64_t dims,
               float* best);

  // Signs as bits, rows of `words` 64-bit words. query: [panel][words][lane]; best: the smallest number of bits that
  // differ.
  int64_t bitLanes;
  void (*bits)(const uint64_t* query, int64_t panels, const uint8_t* page, int64_t tokens, int64_t words,
               int32_t* best);
};

extern const MaxSimKernels kMaxSimScalar;
#if defined(__x86_64__) || defined(_M_X64)
extern const MaxSimKernels kMaxSimAvx2, kMaxSimAvx512Vnni;
#elif defined(__aarch64__) || defined(_M_ARM64)
extern const MaxSimKernels kMaxSimNeon, kMaxSimNeonDotprod;
#endif

}  // namespace pg
