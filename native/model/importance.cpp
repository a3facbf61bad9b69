#include "model/importance.h"

namespace pg {

std::vector<Stage> importanceOf(const Weights& weights, const ObservingDevice& device) {
  std::vector<Stage> stages;
  weights.eachMatrix([&](const std::string& name, const Linear& linear) {
    if (const ObservingDevice::Inputs* inputs = device.inputs(linear))
      stages.push_back({name + ".weight", inputs->rows, int64_t(inputs->squares.size()), {inputs->squares.begin(), inputs->squares.end()}});
  });
  return stages;
}

}  // namespace pg
