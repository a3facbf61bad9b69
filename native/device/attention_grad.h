#pragma once
// The backward pass of attention over the rows of one sequence: positions are row numbers.
#include "base/attention_mask.h"
#include "device/view.h"

namespace pg {

// d of something is the loss's gradient with respect to it.
struct AttentionGrad {
  View dq, dk, dv;             // written; [m, heads * headDim], [m, kvHeads * headDim] twice, f32
  ConstView dout, q, k, v;     // q and k as they met: rotated
  int64_t heads = 1, kvHeads = 1;
  AttentionMask mask;
  float scale = 1, softcap = 0;  // as in AttentionParams
};

}  // namespace pg
