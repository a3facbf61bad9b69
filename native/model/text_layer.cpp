#include "model/text_layer.h"

#include <algorithm>
#include <vector>

namespace pg {

struct TextLayers::Block {
  Arena& arena;
  int64_t layer;
  const TextLayer& weights;
  const TextPass& pass;
  const LayerTape& tape;
  int64_t row, rows;

  View x() const { return pass.x.slice(row, rows); }
  View q() const { return pass.q.slice(row, rows); }
  ConstView positions() const { return pass.positions.slice(row, rows); }

  // Calls use(segment, its first row inside the block, how many) for the segments that meet the block.
  template <class Use>
  void eachSegment(Use&& use) const {
    for (const Segment& s : pass.segments) {
      const int64_t begin = std::max(row, s.row), end = std::min(row + rows, s.row + s.rows);
      if (begin < end) use(s, begin - row, end - begin);
    }
  }
  // The same as blocks, of the rows alone that have to leave the last layer.
  template <class Use>
  void eachWanted(Use&& use) const {
    eachSegment([&](const Segment& s, int64_t begin, int64_t count) {
      const int64_t end = begin + count, first = std::max(begin, s.row + s.wanted - row);
      if (first < end) use(Block{arena, layer, weights, pass, tape, row + first, end - first});
    });
  }
  // The same as runs of rows with one choice of adapters; empty where no row has any.
  std::vector<AdapterRows> adapters() const {
    std::vector<AdapterRows> groups;
    bool any = false;
    eachSegment([&](const Segment& s, int64_t begin, int64_t count) {
      any |= s.adapters != nullptr;
      if (!groups.empty() && groups.back().set == s.adapters) groups.back().rows += count;
      else groups.push_back({s.adapters, begin, count});
    });
    if (!any) groups.clear();
    return groups;
  }
};

void TextLayers::keepRows(const Block& block, View tape, ConstView x) const { keep(device_, tape, block.row, x); }

AttentionMask TextLayers::mask(int64_t layer, int64_t prefix) const {
  const bool slides = layer % 2 == 0 && window_ != AttentionWindow::none;
  return {.prefix = prefix,
          .window = slides ? config_.slidingWindow : 0,
          .windowInPrefix = window_ == AttentionWindow::causal};
}

// Rows that go through the wide layers together.
int64_t TextLayers::blockRows(int64_t tokens, size_t segments) const {
  return segments > 1 ? tokens : std::min(tokens, device_.limits().blockRows);
}

size_t TextLayers::scratchBytes(int64_t tokens, size_t segments) const {
  const int64_t block = blockRows(tokens, segments);
  const size_t branch = Arena::sizeOf(block, config_.hidden);
  const size_t keys = branch + 2 * Arena::sizeOf(block, config_.kvHeads * config_.headDim);
  const size_t attention = branch + Arena::sizeOf(block, config_.heads * config_.headDim);
  const size_t feedForward = 2 * branch + Arena::sizeOf(block, config_.ffn);
  return std::max({keys, attention, feedForward});
}

// Products of more than stepRows rows are computed in another way than those of fewer, with other last bits; so are the
// rows of a pass's last block. Each block keeps its way.
int64_t TextLayers::wantedOfLast(int64_t tokens) const {
  const DeviceLimits limits = device_.limits();
  const int64_t lastBlock = (tokens - 1) % limits.blockRows + 1, enough = limits.stepRows + 1;
  const int64_t rows = lastBlock < enough ? lastBlock + enough : enough;
  return rows < tokens ? tokens - rows : 0;
}

void TextLayers::forward(Arena& arena, int64_t layer, const TextPass& pass, const LayerTape& tape) const {
  const int64_t tokens = pass.x.rows, most = blockRows(tokens, pass.segments.size());
  const bool trims = layer + 1 == config_.layers && std::any_of(pass.segments.begin(), pass.segments.end(),
                                                                [](const Segment& s) { return s.wanted > 0; });
  const auto eachBlock = [&](const auto& use) {
    for (int64_t row = 0; row < tokens; row += most)
      use(Block{arena, layer, weights_.layers[size_t(layer)], pass, tape, row, std::min(most, tokens - row)});
  };
  // keys and values of every row first: prefix rows see rows that come after them
  eachBlock([&](const Block& block) {
    keepRows(block, tape.attention, block.x());
    projections(block, trims);
  });
  const auto rest = [&](const Block& block) {
    attention(block);
    keepRows(block, tape.feedForward, block.x());
    feedForward(block);
  };
  eachBlock([&](const Block& block) { trims ? block.eachWanted(rest) : rest(block); });
}

// Keys and values of all rows; `trims`: queries only of those that have to leave the layer.
void TextLayers::projections(const Block& block, bool trims) const {
  const TextLayer& w = block.weights;
  const int64_t kvWidth = config_.kvHeads * config_.headDim;
  Arena::Scope scope(block.arena);
  View branch = block.arena.take(block.rows, config_.hidden), k = block.arena.take(block.rows, kvWidth),
       v = block.arena.take(block.rows, kvWidth);
  device_.rmsNorm(branch, block.x(), w.attnNorm.weight, config_.normEps);
  const MatmulJob qkv[] = {{block.q(), &w.q}, {k, &w.k}, {v, &w.v}};
  ops_.matmul(branch, std::span(qkv).subspan(trims ? 1 : 0), block.adapters());
  const auto turn = [&](const Block& asking) {
    device_.rope(asking.q(), asking.positions(), config_.headDim, config_.ropeTheta);
  };
  if (!trims) turn(block);
  else
    block.eachWanted([&](const Block& asking) {
      const MatmulJob q{asking.q(), &w.q};
      ops_.matmul(branch.slice(asking.row - block.row, asking.rows), {&q, 1}, asking.adapters());
      turn(asking);
    });
  device_.rope(k, block.positions(), config_.headDim, config_.ropeTheta);
  keepRows(block, block.tape.q, block.q());
  keepRows(block, block.tape.k, k);
  keepRows(block, block.tape.v, v);
  block.eachSegment([&](const Segment& s, int64_t begin, int64_t count) {
    device_.storeKv(s.kv, block.layer, k.slice(begin, count), v.slice(begin, count),
                    block.positions().slice(begin, count));
  });
}

// x += out(attend(q))
void TextLayers::attention(const Block& block) const {
  Arena::Scope scope(block.arena);
  View attended = block.arena.take(block.rows, block.pass.q.cols);
  std::vector<AttentionJob> jobs;
  block.eachSegment([&](const Segment& s, int64_t begin, int64_t count) {
    jobs.push_back({attended.slice(begin, count), block.q().slice(begin, count), s.kv,
                    block.positions().slice(begin, count), mask(block.layer, s.prefix)});
  });
  device_.attention(jobs, {block.layer, config_.attentionScale, config_.attentionSoftcap, block.weights.q.precision()});
  keepRows(block, block.tape.attended, attended);
  product(block, attended, block.weights.out, block.weights.postAttnNorm, block.tape.attentionOut);
}

// x += down(gelu(gate) * up)
void TextLayers::feedForward(const Block& block) const {
  const TextLayer& w = block.weights;
  Arena::Scope scope(block.arena);
  View branch = block.arena.take(block.rows, config_.hidden), wide = block.arena.take(block.rows, config_.ffn);
  device_.rmsNorm(branch, block.x(), w.ffnNorm.weight, config_.normEps);
  if (block.tape.gate) keptGeglu(block, wide, branch);
  else ops_.geglu(wide, branch, w.gate, w.up, block.adapters());
  product(block, wide, w.down, w.postFfnNorm, block.tape.feedForwardOut);
}

// The same by way of the tape.
void TextLayers::keptGeglu(const Block& block, View out, ConstView x) const {
  const View gate = block.tape.gate.slice(block.row, block.rows), up = block.tape.up.slice(block.row, block.rows);
  const MatmulJob jobs[] = {{gate, &block.weights.gate}, {up, &block.weights.up}};
  ops_.matmul(x, jobs, block.adapters());
  device_.copy(out, gate);
  device_.gelu(out, up);
}

// A sub-block's end, x += linear(branch); Gemma 2 normalises that before the addition.
void TextLayers::product(const Block& block, ConstView branch, const Linear& linear, const Norm& postNorm,
                         View tape) const {
  if (!config_.postNorms) {
    const MatmulJob job{block.x(), &linear, Epilogue::add};
    return ops_.matmul(branch, {&job, 1}, block.adapters());
  }
  View out = block.arena.take(block.rows, config_.hidden);
  const MatmulJob job{out, &linear};
  ops_.matmul(branch, {&job, 1}, block.adapters());
  keepRows(block, tape, out);
  device_.rmsNorm(block.x(), out, postNorm.weight, config_.normEps, true);
}

}  // namespace pg
