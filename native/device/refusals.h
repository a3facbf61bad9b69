#pragma once
// What every device says of numbers that nothing sensible can be made of.
#include "base/error.h"

namespace pg {

// Rounding to few bits would hide a NaN, and numbers without meaning would come out as text.
[[noreturn]] inline void refuseSpoiled() {
  fail(Code::modelInvalid,
       "The model computes values that are not finite: its weights (or those of an adapter) hold NaN, infinity or "
       "numbers that are far too large. Convert or download it again; convert names the tensor");
}

// f16 has no number beyond 65504, and the blocks of q8_0 have it as their scale: what is larger would become infinite.
inline constexpr float kLargestHalf = 65504;

[[noreturn]] inline void refuseTooLarge(float limit) {
  fail(Code::modelInvalid, "The model computes keys or values beyond ", limit,
       ", more than a KV cache of this type holds: its weights (or those of an adapter) are far too large, or it "
       "needs kvCacheType: 'f32'");
}

}  // namespace pg
