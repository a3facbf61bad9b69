#pragma once
// Random bits that follow from a key and a place alone, the same on every device and for any number of threads.
#include <cstdint>

namespace pg {

// The last steps of splitmix64: every bit of the result depends on every bit of z.
constexpr uint64_t mixBits(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

constexpr uint64_t randomBits(uint64_t key, uint64_t place) {
  return mixBits(key + 0x9e3779b97f4a7c15ull * (place + 1));
}

}  // namespace pg
