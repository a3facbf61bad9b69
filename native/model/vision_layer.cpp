#include "model/vision_layer.h"

#include <algorithm>
#include <cmath>

namespace pg {

// Rows that go through the feed-forward together.
int64_t VisionLayers::blockRows(int64_t rows) const {
  return rows > config_.tokens ? rows : std::min(rows, device_.limits().blockRows);
}

size_t VisionLayers::scratchBytes(int64_t rows) const {
  const int64_t block = blockRows(rows);
  const size_t attention = 4 * Arena::sizeOf(rows, config_.hidden);  // branch, q, k, v
  const size_t feedForward = Arena::sizeOf(block, config_.hidden) + Arena::sizeOf(block, config_.ffn);
  return std::max(attention, feedForward);
}

void VisionLayers::forward(Arena& arena, int64_t layer, View x, const AdapterSet* adapters,
                           const LayerTape& tape) const {
  const VisionLayer& weights = weights_.layers[size_t(layer)];
  keep(device_, tape.attention, 0, x);
  attention(arena, weights, x, adapters, tape);
  keep(device_, tape.feedForward, 0, x);
  feedForward(arena, weights, x, adapters, tape);
}

// x += out(attend(norm1(x)))
void VisionLayers::attention(Arena& arena, const VisionLayer& layer, View x, const AdapterSet* adapters,
                             const LayerTape& tape) const {
  const int64_t n = x.rows, d = config_.hidden;
  Arena::Scope scope(arena);
  View branch = arena.take(n, d), q = arena.take(n, d), k = arena.take(n, d), v = arena.take(n, d);
  device_.layerNorm(branch, x, layer.norm1.weight, layer.norm1.bias, config_.normEps);
  const MatmulJob qkv[] = {{q, &layer.q}, {k, &layer.k}, {v, &layer.v}};
  ops_.matmul(branch, qkv, adapters);
  keep(device_, tape.q, 0, q);
  keep(device_, tape.k, 0, k);
  keep(device_, tape.v, 0, v);
  for (int64_t row = 0, rows = config_.tokens; row < n; row += rows)
    device_.denseAttention(branch.slice(row, rows), q.slice(row, rows), k.slice(row, rows), v.slice(row, rows),
                           config_.heads, 1.0f / std::sqrt(float(config_.headDim())), layer.q.precision());
  keep(device_, tape.attended, 0, branch);
  const MatmulJob out{x, &layer.out, Epilogue::add};
  ops_.matmul(branch, {&out, 1}, adapters);
}

// x += down(gelu(up(norm2(x)))), in blocks of rows: its wide activations stay small
void VisionLayers::feedForward(Arena& arena, const VisionLayer& layer, View all, const AdapterSet* adapters,
                               const LayerTape& tape) const {
  const int64_t most = blockRows(all.rows);
  for (int64_t row = 0; row < all.rows; row += most) {
    const int64_t rows = std::min(most, all.rows - row);
    Arena::Scope scope(arena);
    View x = all.slice(row, rows), branch = arena.take(rows, config_.hidden), wide = arena.take(rows, config_.ffn);
    device_.layerNorm(branch, x, layer.norm2.weight, layer.norm2.bias, config_.normEps);
    const MatmulJob up{wide, &layer.up, tape.up ? Epilogue::store : Epilogue::gelu};
    const MatmulJob down{x, &layer.down, Epilogue::add};
    ops_.matmul(branch, {&up, 1}, adapters);
    keep(device_, tape.up, row, wide);
    if (tape.up) device_.gelu(wide);
    ops_.matmul(wide, {&down, 1}, adapters);
  }
}

}  // namespace pg
