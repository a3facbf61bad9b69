#pragma once
// One layer of Gemma over the rows of any number of sequences: the function that prefill, decoding and training share.
#include <span>

#include "device/arena.h"
#include "model/adapted_ops.h"
#include "model/config.h"
#include "model/tape.h"
#include "model/weights.h"

namespace pg {

// Consecutive rows of a pass that belong to one sequence, at consecutive positions.
struct Segment {
  KvView kv;
  int64_t row, rows;
  int64_t prefix;   // tokens that see each other fully
  const AdapterSet* adapters;
  // Only its rows from here on have to leave the last layer; of those before, its keys and values alone are computed.
  int64_t wanted = 0;
};

struct TextPass {
  View x;  // [tokens, hidden] f32, the residual stream
  View q;  // [tokens, heads * headDim] f32, the layer's own
  ConstView positions;  // [tokens, 1] i32
  std::span<const Segment> segments;  // cover all rows, in order; several: one block, which shares each product
};

class TextLayers {
 public:
  TextLayers(Device& device, AdaptedOps& ops, const TextConfig& config, const TextWeights& weights,
             AttentionWindow window)
      : device_(device), ops_(ops), config_(config), weights_(weights), window_(window) {}

  // x becomes what leaves the layer, keys and values go to the segments' caches. `arena` has scratchBytes(). A tape
  // needs all rows.
  void forward(Arena& arena, int64_t layer, const TextPass& pass, const LayerTape& tape = {}) const;
  size_t scratchBytes(int64_t tokens, size_t segments) const;
  AttentionMask mask(int64_t layer, int64_t prefix) const;
  // The `wanted` of a segment of so many tokens of which the last alone counts: a few rows more, so that it is computed
  // to the same bits as if all did.
  int64_t wantedOfLast(int64_t tokens) const;

 private:
  // Rows of a pass that go through a sub-block together, and their arena.
  struct Block;

  int64_t blockRows(int64_t tokens, size_t segments) const;
  void projections(const Block& block, bool trims) const;
  void attention(const Block& block) const;
  void feedForward(const Block& block) const;
  void keptGeglu(const Block& block, View out, ConstView x) const;
  void product(const Block& block, ConstView x, const Linear& linear, const Norm& postNorm, View tape) const;
  void keepRows(const Block& block, View tape, ConstView x) const;

  Device& device_;
  AdaptedOps& ops_;
  const TextConfig& config_;
  const TextWeights& weights_;
  AttentionWindow window_;
};

}  // namespace pg
