#pragma once
#include <cstdint>

namespace pg {

// Which keys a query sees: always one contiguous range.
struct AttentionMask {
  int64_t prefix = 0;           // positions 0..prefix-1 see each other fully, later ones are causal
  int64_t window = 0;           // 0 = none; else only the last `window` positions, the query's own included
  bool windowInPrefix = false;  // the window also limits how far back prefix positions look

  int64_t first(int64_t position) const {
    if (window == 0 || (position < prefix && !windowInPrefix)) return 0;
    return position >= window ? position - window + 1 : 0;
  }
  int64_t end(int64_t position) const { return position < prefix ? prefix : position + 1; }
};

}  // namespace pg
