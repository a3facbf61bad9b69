#include "train/vision_backward.h"

#include <algorithm>
#include <cmath>

namespace pg {

size_t VisionBackward::scratchBytes() const {
  const size_t hidden = Arena::sizeOf(config_.tokens, config_.hidden), ffn = Arena::sizeOf(config_.tokens, config_.ffn);
  return std::max(6 * hidden, 2 * hidden + 2 * ffn) + linear_.scratchBytes(config_.tokens);
}

size_t VisionBackward::tapeBytes() const {
  return 5 * Arena::sizeOf(config_.tokens, config_.hidden) + Arena::sizeOf(config_.tokens, config_.ffn);
}

LayerTape VisionBackward::wholeTape(Arena& arena) const {
  const auto take = [&] { return arena.take(config_.tokens, config_.hidden); };
  LayerTape tape;
  tape.feedForward = take(), tape.q = take(), tape.k = take(), tape.v = take(), tape.attended = take();
  tape.up = arena.take(config_.tokens, config_.ffn);
  return tape;
}

bool VisionBackward::trains(int64_t layer) const {
  const VisionLayer& w = weights_.layers[size_t(layer)];
  const Linear* all[] = {&w.q, &w.k, &w.v, &w.out, &w.up, &w.down};
  return std::any_of(std::begin(all), std::end(all), [&](const Linear* linear) { return linear_.trains(*linear); });
}

// features = projector(norm(x))
void VisionBackward::projector(Arena& arena, View d, ConstView features, ConstView beforeNorm) const {
  const Norm& norm = weights_.postNorm;
  device_.submit([&] {
    Arena::Scope scope(arena);
    const View normed = arena.take(d.rows, d.cols);
    device_.layerNorm(normed, beforeNorm, norm.weight, norm.bias, config_.normEps);
    linear_(arena, d, features, normed, weights_.projector);
    device_.layerNormGrad(d, d, beforeNorm, norm.weight, config_.normEps);
  });
}

void VisionBackward::layer(Arena& arena, int64_t layer, View d, const LayerTape& tape, bool through) const {
  const VisionLayer& weights = weights_.layers[size_t(layer)];
  device_.submit([&] {
    feedForward(arena, weights, d, tape);
    attention(arena, weights, d, tape, through);
  });
}

// y = x + down(gelu(up(norm(x))))
void VisionBackward::feedForward(Arena& arena, const VisionLayer& layer, View d, const LayerTape& tape) const {
  Arena::Scope scope(arena);
  const View wide = arena.take(d.rows, config_.ffn), dWide = arena.take(d.rows, config_.ffn);
  const View normed = arena.take(d.rows, d.cols), dNormed = arena.take(d.rows, d.cols);
  if (linear_.trains(layer.down)) {
    device_.copy(wide, tape.up);
    device_.gelu(wide);
  }
  linear_(arena, dWide, d, wide, layer.down);
  device_.geluGrad(dWide, tape.up);
  device_.layerNorm(normed, tape.feedForward, layer.norm2.weight, layer.norm2.bias, config_.normEps);
  linear_(arena, dNormed, dWide, normed, layer.up);
  device_.layerNormGrad(d, dNormed, tape.feedForward, layer.norm2.weight, config_.normEps, true);
}

// y = x + out(attend(q(n), k(n), v(n))), n = norm(x)
void VisionBackward::attention(Arena& arena, const VisionLayer& layer, View d, const LayerTape& tape,
                               bool through) const {
  Arena::Scope scope(arena);
  const auto take = [&] { return arena.take(d.rows, d.cols); };
  const View dAttended = take(), dq = take(), dk = take(), dv = take(), normed = take();
  linear_(arena, dAttended, d, tape.attended, layer.out);
  const AttentionMask all{.prefix = d.rows};
  device_.attentionGrad({dq, dk, dv, dAttended, tape.q, tape.k, tape.v, config_.heads, config_.heads, all,
                         1.0f / std::sqrt(float(config_.headDim())), 0});
  device_.layerNorm(normed, tape.attention, layer.norm1.weight, layer.norm1.bias, config_.normEps);
  const View dNormed = through ? dAttended : View();
  linear_(arena, dNormed, dq, normed, layer.q);
  linear_(arena, dNormed, dk, normed, layer.k, true);
  linear_(arena, dNormed, dv, normed, layer.v, true);
  if (through) device_.layerNormGrad(d, dNormed, tape.attention, layer.norm1.weight, config_.normEps, true);
}

}  // namespace pg
