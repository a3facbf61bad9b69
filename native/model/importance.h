#pragma once
// What an observed model has seen of the inputs of its matrices.
#include <vector>

#include "device/observing_device.h"
#include "model/engine.h"
#include "model/weights.h"

namespace pg {

// One stage per matrix that was used: its tensor's name, rows seen, columns, and the sum of squares of each column.
std::vector<Stage> importanceOf(const Weights& weights, const ObservingDevice& device);

}  // namespace pg
