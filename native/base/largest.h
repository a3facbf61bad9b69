#pragma once
// The largest of many values and where they stand; NaN and minus infinity are none.
#include <cstdint>
#include <limits>
#include <span>

namespace pg {

inline constexpr float kNothing = -std::numeric_limits<float>::infinity();

// The first place of the largest value, -1 where there is none.
int32_t largestOf(std::span<const float> values);
// The ids.size() largest, best first, of equals the first first; -1 and minus infinity where there are no more.
void largestK(std::span<const float> values, std::span<int32_t> ids, float* largest);

bool hasNan(std::span<const float> values);

}  // namespace pg
