#pragma once
// What a backward pass needs of a layer's forward: the residual stream as it entered each of the two sub-blocks, and
// what would cost a product to compute again. Views without memory are not written.
#include "device/device.h"

namespace pg {

struct LayerTape {
  View attention, feedForward;   // [tokens, hidden] f32: the residual stream
  View q, k, v;                  // as they meet: rotated where there are positions
  View attended;
  View attentionOut, feedForwardOut;  // of Gemma 2: what its norms after the sub-blocks get
  View gate, up;                 // before gelu; SigLIP has no gate
};

// Rows [row, row + x.rows) of what a tape keeps.
inline void keep(Device& device, View tape, int64_t row, ConstView x) {
  if (tape) device.copy(tape.slice(row, x.rows), x);
}

}  // namespace pg
