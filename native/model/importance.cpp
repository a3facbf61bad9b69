#include "model/importance.h"

#include <string>

namespace pg {

std::vector<Stage> importanceOf(const Weights& weights, const ObservingDevice& device) {
  std::vector<Stage> stages;
  const auto add = [&](const std::string& name, const Linear& linear) {
    const ObservingDevice::Inputs* inputs = device.inputs(linear);
    if (!inputs) return;
    stages.push_back({name + ".weight", inputs->rows, int64_t(inputs->squares.size()), {inputs->squares.begin(), inputs->squares.end()}});
  };
  // the names of docs/gguf.md
  add("token_embd", weights.text.embedding);
  for (size_t i = 0; i < weights.text.layers.size(); ++i) {
    const TextLayer& layer = weights.text.layers[i];
    const std::string prefix = "blk." + std::to_string(i) + ".";
    add(prefix + "attn_q", layer.q);
    add(prefix + "attn_k", layer.k);
    add(prefix + "attn_v", layer.v);
    add(prefix + "attn_output", layer.out);
    add(prefix + "ffn_gate", layer.gate);
    add(prefix + "ffn_up", layer.up);
    add(prefix + "ffn_down", layer.down);
  }
  add("v.patch_embd", weights.vision.patch);
  for (size_t i = 0; i < weights.vision.layers.size(); ++i) {
    const VisionLayer& layer = weights.vision.layers[i];
    const std::string prefix = "v.blk." + std::to_string(i) + ".";
    add(prefix + "attn_q", layer.q);
    add(prefix + "attn_k", layer.k);
    add(prefix + "attn_v", layer.v);
    add(prefix + "attn_out", layer.out);
    add(prefix + "ffn_up", layer.up);
    add(prefix + "ffn_down", layer.down);
  }
  add("mm.0", weights.vision.projector);
  return stages;
}

}  // namespace pg
