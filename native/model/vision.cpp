// Reproduces big_vision's ViT without head (models/vit.py) and PaliGemma's img head; checked against SiglipVisionModel.
#include "model/vision.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "image/image.h"

namespace pg {
namespace {

constexpr int64_t kBlockRows = 512;  // rows of the feed-forward at a time: its wide activations stay small

}  // namespace

void VisionEncoder::matmul(ConstView x, std::span<const MatmulJob> jobs) {
  const AdapterRows all{adapters_, 0, x.rows};
  ops_.matmul(x, jobs, {&all, adapters_ ? size_t(1) : size_t(0)});
}

void VisionEncoder::packOnce(std::span<Linear* const> matrices) {
  if (pictures_ < 2 || matrices.front()->packed) return;
  try {
    Buffer buffer = device_.pack(matrices);
    if (buffer.data()) packed_.push_back(std::move(buffer));
  } catch (const Error&) {
    return;  // no memory for it: the picture needs none
  }
  for (const Linear* linear : matrices)
    if (linear->packed) files_.releasePages(*linear);
}

void VisionEncoder::begin(const uint8_t* pixels, const AdapterSet* adapters) {
  adapters_ = adapters;
  const int64_t n = config_.tokens, d = config_.hidden;
  const int64_t block = std::min(n, kBlockRows);
  const size_t attention = 4 * Arena::sizeOf(n, d);  // branch, q, k, v
  const size_t feedForward = Arena::sizeOf(block, d) + Arena::sizeOf(block, config_.ffn);
  const size_t patches = Arena::sizeOf(n, config_.patchValues());
  arena_.reset();
  arena_.reserve(Arena::sizeOf(n, d) + std::max({attention, feedForward, patches,
                                                 Arena::sizeOf(n, weights_.projector.out()) + Arena::sizeOf(n, d)}));

  // patch embedding is a matmul over flattened patches, then the learned position is added
  x_ = arena_.take(n, d);
  Arena::Scope scope(arena_);
  View patchRows = arena_.take(n, config_.patchValues());
  std::vector<float> host(size_t(n * config_.patchValues()));
  patchify(pixels, int32_t(config_.imageSize), int32_t(config_.patch), config_.mean, config_.std,
           View(reinterpret_cast<uint8_t*>(host.data()), DType::f32, n, config_.patchValues()));
  device_.upload(patchRows, host.data());
  const MatmulJob job{x_, &weights_.patch};
  matmul(patchRows, {&job, 1});
  device_.add(x_, weights_.position);
  nextLayer_ = 0;
  ++pictures_;
}

bool VisionEncoder::step() {
  if (nextLayer_ < config_.layers) {
    VisionLayer& layer = weights_.layers[size_t(nextLayer_++)];
    Linear* const matrices[] = {&layer.q, &layer.k, &layer.v, &layer.out, &layer.up, &layer.down};
    packOnce(matrices);
    attention(layer);
    feedForward(layer);
  }
  if (nextLayer_ < config_.layers) return false;
  device_.layerNorm(x_, x_, weights_.postNorm.weight, weights_.postNorm.bias, config_.normEps);
  return true;
}

// x += out(attend(norm1(x)))
void VisionEncoder::attention(const VisionLayer& layer) {
  const int64_t n = config_.tokens, d = config_.hidden;
  Arena::Scope scope(arena_);
  View branch = arena_.take(n, d), q = arena_.take(n, d), k = arena_.take(n, d), v = arena_.take(n, d);
  device_.layerNorm(branch, x_, layer.norm1.weight, layer.norm1.bias, config_.normEps);
  const MatmulJob qkv[] = {{q, &layer.q}, {k, &layer.k}, {v, &layer.v}};
  matmul(branch, qkv);
  device_.denseAttention(branch, q, k, v, config_.heads, 1.0f / std::sqrt(float(config_.headDim())),
                         layer.q.precision());
  const MatmulJob out{x_, &layer.out, Epilogue::add};
  matmul(branch, {&out, 1});
}

// x += down(gelu(up(norm2(x))))
void VisionEncoder::feedForward(const VisionLayer& layer) {
  for (int64_t row = 0; row < config_.tokens; row += kBlockRows) {
    const int64_t rows = std::min(kBlockRows, config_.tokens - row);
    Arena::Scope scope(arena_);
    View x = x_.slice(row, rows), branch = arena_.take(rows, config_.hidden), wide = arena_.take(rows, config_.ffn);
    device_.layerNorm(branch, x, layer.norm2.weight, layer.norm2.bias, config_.normEps);
    const MatmulJob up{wide, &layer.up, Epilogue::gelu}, down{x, &layer.down, Epilogue::add};
    matmul(branch, {&up, 1});
    matmul(wide, {&down, 1});
  }
}

void VisionEncoder::finish(float* features) {
  Linear* const projector[] = {&weights_.projector};
  packOnce(projector);
  Arena::Scope scope(arena_);
  View out = arena_.take(config_.tokens, weights_.projector.out());
  const MatmulJob job{out, &weights_.projector};
  matmul(x_, {&job, 1});
  device_.download(features, out);
}

void VisionEncoder::lastHidden(float* states) { device_.download(states, x_); }

}  // namespace pg
