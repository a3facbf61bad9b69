#pragma once
// What a backward pass needs of a layer's forward: the residual stream as it entered each of the two sub-blocks.
// Everything inside them can be computed again from it. Views without memory are not written.
#include "device/device.h"

namespace pg {

struct LayerTape {
  View attention, feedForward;   // [tokens, hidden] f32
};

// Rows [row, row + x.rows) of what enters a sub-block.
inline void keep(Device& device, View tape, int64_t row, ConstView x) {
  if (tape) device.copy(tape.slice(row, x.rows), x);
}

}  // namespace pg
