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

// Beyond kLargestHalf in f16, or in the blocks of q8_0, which have it as their scale, all would become infinite.
[[noreturn]] inline void refuseTooLarge(float limit) {
  fail(Code::modelInvalid, "The model computes keys or values beyond ", limit,
       ", more than a KV cache of this type holds: its weights (or those of an adapter) are far too large, or it "
       "needs kvCacheType: 'f32'");
}

}  // namespace pg
