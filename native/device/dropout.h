#pragma once
#include <cmath>
#include <cstdint>

#include "base/random_bits.h"

namespace pg {

// A share `rate` of a tensor's values becomes zero, the others grow by 1 / (1 - rate). Which ones follows from the key
// and each value's place, row * cols + column.
struct Dropout {
  float rate = 0;  // 0: none
  uint64_t key = 0;

  Dropout of(uint64_t part) const { return {rate, randomBits(key, part)}; }
  float factor() const { return 1 / (1 - rate); }
  // Values whose upper random bits are below it become zero.
  uint32_t threshold() const { return uint32_t(std::ldexp(double(rate), 32)); }
  static bool keeps(uint64_t key, uint64_t place, uint32_t threshold) {
    return uint32_t(randomBits(key, place) >> 32) >= threshold;
  }
};

}  // namespace pg
