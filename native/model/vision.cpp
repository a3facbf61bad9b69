// Reproduces big_vision's ViT without head (models/vit.py) and PaliGemma's img head; checked against SiglipVisionModel.
#include "model/vision.h"

#include <algorithm>
#include <vector>

#include "image/image.h"

namespace pg {

int64_t VisionEncoder::mostPictures() const {
  const DeviceLimits limits = device_.limits();
  const bool share = config_.tokens > limits.stepRows && config_.tokens <= limits.blockRows;
  return share ? std::max<int64_t>(1, limits.jointRows / config_.tokens) : 1;
}

void VisionEncoder::begin(std::span<const uint8_t* const> pictures, const AdapterSet* adapters) {
  adapters_ = adapters;
  const int64_t n = config_.tokens, d = config_.hidden, all = int64_t(pictures.size()) * n;
  arena_.reset();
  arena_.reserve(Arena::sizeOf(all, d) +
                 std::max(layers_.scratchBytes(all), Arena::sizeOf(all, config_.patchValues())));

  // patch embedding is a matmul over flattened patches, then the learned position is added
  x_ = arena_.take(all, d);
  Arena::Scope scope(arena_);
  View patchRows = arena_.take(all, config_.patchValues());
  std::vector<float> host(size_t(n * config_.patchValues()));
  for (size_t i = 0; i < pictures.size(); ++i) {
    patchify(pictures[i], int32_t(config_.imageSize), int32_t(config_.patch), config_.mean, config_.std,
             HostView(reinterpret_cast<uint8_t*>(host.data()), DType::f32, n, config_.patchValues()));
    device_.upload(patchRows.slice(int64_t(i) * n, n), host.data());
  }
  device_.submit([&] {
    const MatmulJob job{x_, &weights_.patch};
    ops_.matmul(patchRows, {&job, 1}, adapters_);
    device_.add(x_, weights_.position);
  });
  nextLayer_ = 0;
}

bool VisionEncoder::step(const LayerTape& tape, View beforeNorm) {
  const bool last = nextLayer_ + 1 >= config_.layers;
  device_.submit([&] {
    if (nextLayer_ < config_.layers) layers_.forward(arena_, nextLayer_++, x_, adapters_, tape);
    if (!last) return;
    keep(device_, beforeNorm, 0, x_);
    device_.layerNorm(x_, x_, weights_.postNorm.weight, weights_.postNorm.bias, config_.normEps);
  });
  return last;
}

void VisionEncoder::repeatLayer(int64_t layer, const LayerTape& tape) {
  device_.submit([&] {
    device_.copy(x_, tape.attention);
    layers_.forward(arena_, layer, x_, adapters_, tape);
  });
}

void VisionEncoder::finish(View features, int64_t picture) {
  device_.submit([&] {
    const MatmulJob job{features, &weights_.projector};
    ops_.matmul(x_.slice(picture * config_.tokens, config_.tokens), {&job, 1}, adapters_);
  });
}

void VisionEncoder::lastHidden(float* states) { device_.download(states, x_); }

}  // namespace pg
