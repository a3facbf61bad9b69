#include "train/text_backward.h"

#include <algorithm>

namespace pg {

struct TextBackward::Block {
  Arena& arena;
  const TextLayer& weights;
  View d;
  const LayerTape& tape;

  int64_t rows() const { return d.rows; }
  View take(int64_t cols) const { return arena.take(d.rows, cols); }
};

size_t TextBackward::scratchBytes(int64_t tokens) const {
  const auto bytes = [&](int64_t cols) { return Arena::sizeOf(tokens, cols); };
  const int64_t queries = config_.heads * config_.headDim, keys = config_.kvHeads * config_.headDim;
  const size_t feedForward = 3 * bytes(config_.hidden) + 2 * bytes(config_.ffn);
  const size_t attention = 3 * bytes(config_.hidden) + 2 * bytes(queries) + 2 * bytes(keys);
  return std::max(feedForward, attention) + linear_.scratchBytes(tokens);
}

size_t TextBackward::tapeBytes(int64_t tokens) const {
  const auto bytes = [&](int64_t cols) { return Arena::sizeOf(tokens, cols); };
  const int64_t queries = config_.heads * config_.headDim, keys = config_.kvHeads * config_.headDim;
  return (config_.postNorms ? 3 : 1) * bytes(config_.hidden) + 2 * bytes(queries) + 2 * bytes(keys) +
         2 * bytes(config_.ffn);
}

// All but what enters the layer.
LayerTape TextBackward::wholeTape(Arena& arena, int64_t tokens) const {
  const auto take = [&](int64_t cols) { return arena.take(tokens, cols); };
  const int64_t queries = config_.heads * config_.headDim, keys = config_.kvHeads * config_.headDim;
  LayerTape tape;
  tape.feedForward = take(config_.hidden);
  tape.q = take(queries), tape.k = take(keys), tape.v = take(keys), tape.attended = take(queries);
  tape.gate = take(config_.ffn), tape.up = take(config_.ffn);
  if (config_.postNorms) tape.attentionOut = take(config_.hidden), tape.feedForwardOut = take(config_.hidden);
  return tape;
}

void TextBackward::operator()(Arena& arena, int64_t layer, View d, const Pass& pass, const LayerTape& tape,
                              bool through) const {
  const Block block{arena, weights_.layers[size_t(layer)], d, tape};
  device_.submit([&] {
    feedForward(block);
    attention(block, pass, through);
  });
}

// The gradient of a sub-block's product, before the norm that Gemma 2 has behind it.
ConstView TextBackward::branchGrad(const Block& block, ConstView out, const Norm& postNorm) const {
  if (!config_.postNorms) return block.d;
  const View grad = block.take(config_.hidden);
  device_.rmsNormGrad(grad, block.d, out, postNorm.weight, config_.normEps);
  return grad;
}

// y = x + post(down(gelu(gate(n)) * up(n))), n = norm(x)
void TextBackward::feedForward(const Block& block) const {
  const TextLayer& w = block.weights;
  const LayerTape& tape = block.tape;
  Arena::Scope scope(block.arena);
  const ConstView dOut = branchGrad(block, tape.feedForwardOut, w.postFfnNorm);
  const View product = block.take(config_.ffn), dProduct = block.take(config_.ffn);
  if (linear_.trains(w.down)) {
    device_.copy(product, tape.gate);
    device_.gelu(product, tape.up);
  }
  linear_(block.arena, dProduct, dOut, product, w.down);
  device_.gegluGrad(tape.gate, tape.up, dProduct);
  const View normed = block.take(config_.hidden);
  device_.rmsNorm(normed, tape.feedForward, w.ffnNorm.weight, config_.normEps);
  const View dNormed = block.take(config_.hidden);
  linear_(block.arena, dNormed, tape.gate, normed, w.gate);
  linear_(block.arena, dNormed, tape.up, normed, w.up, true);
  device_.rmsNormGrad(block.d, dNormed, tape.feedForward, w.ffnNorm.weight, config_.normEps, true);
}

// y = x + post(out(attend(q(n), k(n), v(n)))), n = norm(x)
void TextBackward::attention(const Block& block, const Pass& pass, bool through) const {
  const TextLayer& w = block.weights;
  const LayerTape& tape = block.tape;
  Arena::Scope scope(block.arena);
  const ConstView dOut = branchGrad(block, tape.attentionOut, w.postAttnNorm);
  const View dAttended = block.take(tape.q.cols), dq = block.take(tape.q.cols);
  const View dk = block.take(tape.k.cols), dv = block.take(tape.k.cols);
  linear_(block.arena, dAttended, dOut, tape.attended, w.out);
  device_.attentionGrad({dq, dk, dv, dAttended, tape.q, tape.k, tape.v, config_.heads, config_.kvHeads, pass.mask,
                         config_.attentionScale, config_.attentionSoftcap});
  device_.ropeGrad(dq, pass.positions, config_.headDim, config_.ropeTheta);
  device_.ropeGrad(dk, pass.positions, config_.headDim, config_.ropeTheta);
  const View normed = block.take(config_.hidden), dNormed = through ? block.take(config_.hidden) : View();
  device_.rmsNorm(normed, tape.attention, w.attnNorm.weight, config_.normEps);
  linear_(block.arena, dNormed, dq, normed, w.q);
  linear_(block.arena, dNormed, dk, normed, w.k, true);
  linear_(block.arena, dNormed, dv, normed, w.v, true);
  if (through) device_.rmsNormGrad(block.d, dNormed, tape.attention, w.attnNorm.weight, config_.normEps, true);
}

}  // namespace pg
