#include "model/weights.h"

#include "format/quantize.h"

namespace pg {

// 1-d tensors count as one row; a conv kernel [out, 3, p, p] as out rows of 3 * p * p.
const GgufTensor& Weights::require(const GgufFile& file, const std::string& name, int64_t rows, int64_t cols) {
  const GgufTensor* tensor = file.findTensor(name);
  if (!tensor) fail(Code::modelInvalid, file.path(), ": tensor ", name, " is missing");
  if (tensor->elements() != rows * cols || (tensor->cols() != cols && tensor->dims <= 2))
    fail(Code::modelInvalid, file.path(), ": tensor ", name, " has shape [", tensor->rows(), ", ", tensor->cols(), "], expected [",
         rows, ", ", cols, "] (byte offset ", tensor->offset, ")");
  if (!canDequantize(tensor->type))
    fail(Code::modelUnsupported, file.path(), ": tensor ", name, " has type ", dtypeName(tensor->type), ", which holds no weights");
  return *tensor;
}

const float* Weights::widened(const GgufFile& file, const GgufTensor& tensor) {
  const ConstView view = file.view(tensor);
  if (tensor.type == DType::f32 && reinterpret_cast<uintptr_t>(view.data) % alignof(float) == 0) return view.row<float>(0);
  auto copy = std::make_unique<float[]>(size_t(tensor.elements()));
  for (int64_t r = 0; r < view.rows; ++r) dequantizeRow(tensor.type, view.row<void>(r), copy.get() + r * view.cols, view.cols);
  copies_.push_back(std::move(copy));
  return copies_.back().get();
}

const float* Weights::vector(const GgufFile& file, const std::string& name, int64_t n) {
  return widened(file, require(file, name, 1, n));
}

Linear Weights::linear(const GgufFile& file, const std::string& name, int64_t out, int64_t in, bool bias) {
  const GgufTensor& tensor = require(file, name + ".weight", out, in);
  Linear linear;
  linear.weight = ConstView(file.view(tensor).data, tensor.type, out, in);
  const DTypeInfo* info = dtypeInfo(tensor.type);
  if (in % info->block)
    fail(Code::modelInvalid, file.path(), ": tensor ", name, ".weight has rows of ", in, " values, no multiple of ", info->name, "'s block of ", info->block);
  if (bias) linear.bias = vector(file, name + ".bias", out);
  return linear;
}

void Weights::readText(std::shared_ptr<const GgufFile> file, const TextConfig& c) {
  const GgufFile& f = *file;
  files_.push_back(file);
  text.embedding = linear(f, "token_embd", c.vocab, c.hidden, false);
  if (const GgufTensor* head = f.findTensor("retrieval.proj.weight")) {
    if (head->rows() < 1 || head->rows() > c.vocab)
      fail(Code::modelInvalid, f.path(), ": tensor retrieval.proj.weight has ", head->rows(), " rows, expected 1..", c.vocab);
    retrieval = linear(f, "retrieval.proj", head->rows(), c.hidden, true);
  }
  text.outputNorm.weight = vector(f, "output_norm.weight", c.hidden);
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string p = "blk." + std::to_string(i) + ".";
    TextLayer layer;
    layer.attnNorm.weight = vector(f, p + "attn_norm.weight", c.hidden);
    layer.ffnNorm.weight = vector(f, p + "ffn_norm.weight", c.hidden);
    if (c.postNorms) {
      layer.postAttnNorm.weight = vector(f, p + "post_attention_norm.weight", c.hidden);
      layer.postFfnNorm.weight = vector(f, p + "post_ffw_norm.weight", c.hidden);
    }
    layer.q = linear(f, p + "attn_q", c.heads * c.headDim, c.hidden, false);
    layer.k = linear(f, p + "attn_k", c.kvHeads * c.headDim, c.hidden, false);
    layer.v = linear(f, p + "attn_v", c.kvHeads * c.headDim, c.hidden, false);
    layer.out = linear(f, p + "attn_output", c.hidden, c.heads * c.headDim, false);
    layer.gate = linear(f, p + "ffn_gate", c.ffn, c.hidden, false);
    layer.up = linear(f, p + "ffn_up", c.ffn, c.hidden, false);
    layer.down = linear(f, p + "ffn_down", c.hidden, c.ffn, false);
    text.layers.push_back(layer);
  }
}

void Weights::readVision(std::shared_ptr<const GgufFile> file, const VisionConfig& c, int64_t textHidden) {
  const GgufFile& f = *file;
  files_.push_back(file);
  vision.patch = linear(f, "v.patch_embd", c.hidden, c.patchValues(), true);
  const float* position = widened(f, require(f, "v.position_embd.weight", c.tokens, c.hidden));
  vision.position = ConstView(reinterpret_cast<const uint8_t*>(position), DType::f32, c.tokens, c.hidden);
  vision.postNorm = {vector(f, "v.post_ln.weight", c.hidden), vector(f, "v.post_ln.bias", c.hidden)};
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string p = "v.blk." + std::to_string(i) + ".";
    VisionLayer layer;
    layer.norm1 = {vector(f, p + "ln1.weight", c.hidden), vector(f, p + "ln1.bias", c.hidden)};
    layer.norm2 = {vector(f, p + "ln2.weight", c.hidden), vector(f, p + "ln2.bias", c.hidden)};
    layer.q = linear(f, p + "attn_q", c.hidden, c.hidden, true);
    layer.k = linear(f, p + "attn_k", c.hidden, c.hidden, true);
    layer.v = linear(f, p + "attn_v", c.hidden, c.hidden, true);
    layer.out = linear(f, p + "attn_out", c.hidden, c.hidden, true);
    // Old files swap the names: ffn_down then maps hidden to ffn. Decide by shape.
    const GgufTensor* up = f.findTensor(p + "ffn_up.weight");
    const bool swapped = up && up->cols() == c.ffn && up->rows() == c.hidden && c.ffn != c.hidden;
    layer.up = linear(f, p + (swapped ? "ffn_down" : "ffn_up"), c.ffn, c.hidden, true);
    layer.down = linear(f, p + (swapped ? "ffn_up" : "ffn_down"), c.hidden, c.ffn, true);
    vision.layers.push_back(layer);
  }
  const bool ours = f.findTensor("mm.0.weight") || !f.findTensor("mm.input_projection.weight");
  vision.projector = linear(f, ours ? "mm.0" : "mm.input_projection", textHidden, c.hidden, true);
}

std::map<std::string, const Linear*> Weights::linears() const {
  std::map<std::string, const Linear*> list;
  for (size_t i = 0; i < text.layers.size(); ++i) {
    const TextLayer& l = text.layers[i];
    const std::string p = "blk." + std::to_string(i) + ".";
    for (const auto& [name, linear] : {std::pair{"attn_q", &l.q}, {"attn_k", &l.k}, {"attn_v", &l.v}, {"attn_output", &l.out},
                                       {"ffn_gate", &l.gate}, {"ffn_up", &l.up}, {"ffn_down", &l.down}})
      list[p + name] = linear;
  }
  for (size_t i = 0; i < vision.layers.size(); ++i) {
    const VisionLayer& l = vision.layers[i];
    const std::string p = "v.blk." + std::to_string(i) + ".";
    for (const auto& [name, linear] : {std::pair{"attn_q", &l.q}, {"attn_k", &l.k}, {"attn_v", &l.v}, {"attn_out", &l.out},
                                       {"ffn_up", &l.up}, {"ffn_down", &l.down}})
      list[p + name] = linear;
  }
  if (retrieval.weight) list["retrieval.proj"] = &retrieval;
  if (vision.projector.weight) list["v.patch_embd"] = &vision.patch, list["mm.0"] = &vision.projector;
  return list;
}

}  // namespace pg
