// The plain version, which every other is tested against.
#include <math.h>
#include <string.h>

#include "retrieval/kernels.h"

namespace pg {
namespace {

void f32(const float* query, int64_t panels, const float* page, int64_t tokens, int64_t dims, float* best) {
  for (int64_t q = 0; q < panels; ++q) {
    best[q] = -INFINITY;
    for (int64_t t = 0; t < tokens; ++t) {
      float dot = 0;
      for (int64_t k = 0; k < dims; ++k) dot += query[q * dims + k] * page[t * dims + k];
      if (dot > best[q]) best[q] = dot;
    }
  }
}

void int8(const void* query, int64_t panels, const int8_t* page, const float* scales, int64_t tokens, int64_t dims,
          float* best) {
  const int16_t* values = static_cast<const int16_t*>(query);
  for (int64_t q = 0; q < panels; ++q) {
    best[q] = -INFINITY;
    for (int64_t t = 0; t < tokens; ++t) {
      int32_t dot = 0;
      for (int64_t k = 0; k < dims; ++k) dot += values[q * dims + k] * page[t * dims + k];
      const float product = float(dot) * scales[t];
      if (product > best[q]) best[q] = product;
    }
  }
}

int32_t ones(uint64_t x) {
  x -= x >> 1 & 0x5555555555555555;
  x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
  x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f;
  return int32_t(x * 0x0101010101010101 >> 56);
}

void bits(const uint64_t* query, int64_t panels, const uint8_t* page, int64_t tokens, int64_t words, int32_t* best) {
  for (int64_t q = 0; q < panels; ++q) {
    best[q] = INT32_MAX;
    for (int64_t t = 0; t < tokens; ++t) {
      int32_t distance = 0;
      for (int64_t w = 0; w < words; ++w) {
        uint64_t word;
        memcpy(&word, page + (t * words + w) * 8, 8);
        distance += ones(word ^ query[q * words + w]);
      }
      if (distance < best[q]) best[q] = distance;
    }
  }
}

}  // namespace

const MaxSimKernels kMaxSimScalar = {
    .isa = "scalar", .lanes = 1, .f32 = f32, .group = 1, .int8 = int8, .bitLanes = 1, .bits = bits};

}  // namespace pg
