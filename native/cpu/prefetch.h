#pragma once
// Asks for bytes that are needed soon, where the compiler has a word for it.
#include <cstdint>

namespace pg {

inline void prefetch(const uint8_t* p, int64_t bytes) {
#if defined(__GNUC__) || defined(__clang__)
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + i, 0, 2);
#else
  (void)p, (void)bytes;
#endif
}

}  // namespace pg
