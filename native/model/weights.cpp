#include "model/weights.h"

#include <algorithm>

#include "format/quantize.h"
#include "model/extra_tensors.h"

namespace pg {
namespace {

// The matrices of a layer: their names in files, where they go, and their shapes.
template <class Layer, class Config>
struct LayerMatrix {
  using Width = int64_t (*)(const Config&);
  const char* name;
  Linear Layer::* matrix;
  Width out, in;
};

template <class Config>
int64_t hidden(const Config& c) {
  return c.hidden;
}
template <class Config>
int64_t ffn(const Config& c) {
  return c.ffn;
}
int64_t queries(const TextConfig& c) { return c.heads * c.headDim; }
int64_t keys(const TextConfig& c) { return c.kvHeads * c.headDim; }

constexpr LayerMatrix<TextLayer, TextConfig> kTextMatrices[] = {
    {"attn_q", &TextLayer::q, queries, hidden},  {"attn_k", &TextLayer::k, keys, hidden},
    {"attn_v", &TextLayer::v, keys, hidden},     {"attn_output", &TextLayer::out, hidden, queries},
    {"ffn_gate", &TextLayer::gate, ffn, hidden}, {"ffn_up", &TextLayer::up, ffn, hidden},
    {"ffn_down", &TextLayer::down, hidden, ffn}};

constexpr LayerMatrix<VisionLayer, VisionConfig> kVisionMatrices[] = {
    {"attn_q", &VisionLayer::q, hidden, hidden}, {"attn_k", &VisionLayer::k, hidden, hidden},
    {"attn_v", &VisionLayer::v, hidden, hidden}, {"attn_out", &VisionLayer::out, hidden, hidden},
    {"ffn_up", &VisionLayer::up, ffn, hidden},   {"ffn_down", &VisionLayer::down, hidden, ffn}};

std::string textLayer(size_t i) { return "blk." + std::to_string(i) + "."; }
std::string visionLayer(size_t i) { return "v.blk." + std::to_string(i) + "."; }

// Old files swap the names of the feed-forward's matrices: ffn_down then maps hidden to ffn. Decide by shape.
std::string swappedName(const GgufFile& f, const std::string& layer, const std::string& name, const VisionConfig& c) {
  const GgufTensor* up = f.findTensor(layer + "ffn_up.weight");
  const bool swapped = up && up->cols() == c.ffn && up->rows() == c.hidden && c.ffn != c.hidden;
  if (!swapped) return name;
  return name == "ffn_up" ? "ffn_down" : name == "ffn_down" ? "ffn_up" : name;
}

}  // namespace

// 1-d tensors count as one row; a conv kernel [out, 3, p, p] as out rows of 3 * p * p.
const GgufTensor& Weights::require(const GgufFile& file, const std::string& name, int64_t rows, int64_t cols) {
  const GgufTensor* tensor = file.findTensor(name);
  if (!tensor) fail(Code::modelInvalid, file.path(), ": tensor ", name, " is missing");
  if (tensor->elements() != rows * cols || (tensor->cols() != cols && tensor->dims <= 2))
    fail(Code::modelInvalid, file.path(), ": tensor ", name, " has shape [", tensor->rows(), ", ", tensor->cols(),
         "], expected [", rows, ", ", cols, "] (byte offset ", tensor->offset, ")");
  if (!canDequantize(tensor->type))
    fail(Code::modelUnsupported, file.path(), ": tensor ", name, " has type ", dtypeName(tensor->type),
         ", which holds no weights");
  read_.insert(tensor);
  return *tensor;
}

// As f32, copied: a small tensor read in the file would bring the pages around it back to memory, of matrices that were
// given back.
void Weights::widened(const File& file, ConstView& to, const GgufTensor& tensor, int64_t rows, int64_t cols) {
  const ConstHostView view = file->view(tensor);
  float* copy = copies_.emplace_back(std::make_unique<float[]>(size_t(rows * cols))).get();
  for (int64_t r = 0; r < view.rows; ++r)
    dequantizeRow(tensor.type, view.row<void>(r), copy + r * view.cols, view.cols);
  waiting_.push_back({.host = {reinterpret_cast<const uint8_t*>(copy), DType::f32, rows, cols}, .file = {}, .to = &to});
}

void Weights::vector(const File& file, ConstView& to, const std::string& name, int64_t n) {
  widened(file, to, require(*file, name, 1, n), 1, n);
}

void Weights::linear(const File& file, Linear& to, const std::string& name, int64_t out, int64_t in, bool bias,
                     bool manyRows) {
  const GgufTensor& tensor = require(*file, name + ".weight", out, in);
  const DTypeInfo* info = dtypeInfo(tensor.type);
  if (in % info->block)
    fail(Code::modelInvalid, file->path(), ": tensor ", name, ".weight has rows of ", in, " values, no multiple of ",
         info->name, "'s block of ", info->block);
  waiting_.push_back({.host = {file->view(tensor).data, tensor.type, out, in},
                      .file = {file, file->mapOf(file->view(tensor).data)},
                      .manyRows = manyRows,
                      .to = &to.weight});
  if (bias) vector(file, to.bias, name + ".bias", out);
}

void Weights::place(Device& device) {
  memory_ = device.place(waiting_);
  waiting_.clear();
  copies_.clear();
}

void Weights::readText(const File& file, const TextConfig& c) {
  const GgufFile& f = *file;
  linear(file, text.embedding, "token_embd", c.vocab, c.hidden, false);
  if (const GgufTensor* head = f.findTensor("retrieval.proj.weight")) {
    if (head->rows() < 1 || head->rows() > c.vocab)
      fail(Code::modelInvalid, f.path(), ": tensor retrieval.proj.weight has ", head->rows(), " rows, expected 1..",
           c.vocab);
    linear(file, retrieval, "retrieval.proj", head->rows(), c.hidden, true);
  }
  vector(file, text.outputNorm.weight, "output_norm.weight", c.hidden);
  text.layers.resize(size_t(c.layers));
  for (size_t i = 0; i < text.layers.size(); ++i) {
    const std::string p = textLayer(i);
    TextLayer& layer = text.layers[i];
    vector(file, layer.attnNorm.weight, p + "attn_norm.weight", c.hidden);
    vector(file, layer.ffnNorm.weight, p + "ffn_norm.weight", c.hidden);
    if (c.postNorms) {
      vector(file, layer.postAttnNorm.weight, p + "post_attention_norm.weight", c.hidden);
      vector(file, layer.postFfnNorm.weight, p + "post_ffw_norm.weight", c.hidden);
    }
    for (const auto& [name, matrix, out, in] : kTextMatrices)
      linear(file, layer.*matrix, p + name, out(c), in(c), false);
  }
  checkOwnHead(f);
  checkRopeFactors(f);
  refuseUnread(f, {"blk.", "output", "token_embd", "position_embd", "rope_"});
}

void Weights::readVision(File file, const VisionConfig& c, int64_t textHidden) {
  const GgufFile& f = *file;
  const auto norm = [&](Norm& to, const std::string& name) {
    vector(file, to.weight, name + ".weight", c.hidden);
    vector(file, to.bias, name + ".bias", c.hidden);
  };
  linear(file, vision.patch, "v.patch_embd", c.hidden, c.patchValues(), true);
  const GgufTensor& position = require(f, "v.position_embd.weight", c.tokens, c.hidden);
  if (const uint8_t* data = f.view(position).data;
      position.type == DType::f32 && reinterpret_cast<uintptr_t>(data) % alignof(float) == 0)
    waiting_.push_back(
        {.host = {data, DType::f32, c.tokens, c.hidden}, .file = {file, f.mapOf(data)}, .to = &vision.position});
  else widened(file, vision.position, position, c.tokens, c.hidden);
  norm(vision.postNorm, "v.post_ln");
  vision.layers.resize(size_t(c.layers));
  for (size_t i = 0; i < vision.layers.size(); ++i) {
    const std::string p = visionLayer(i);
    VisionLayer& layer = vision.layers[i];
    norm(layer.norm1, p + "ln1");
    norm(layer.norm2, p + "ln2");
    for (const auto& [name, matrix, out, in] : kVisionMatrices)
      linear(file, layer.*matrix, p + swappedName(f, p, name, c), out(c), in(c), true, true);
  }
  const bool ours = f.findTensor("mm.0.weight") || !f.findTensor("mm.input_projection.weight");
  linear(file, vision.projector, ours ? "mm.0" : "mm.input_projection", textHidden, c.hidden, true, true);
  refuseUnread(f, {"v.", "mm."});
}

void Weights::refuseUnread(const GgufFile& file, std::initializer_list<std::string_view> prefixes) const {
  for (const GgufTensor& tensor : file.tensors()) {
    const auto begins = [&](std::string_view prefix) { return tensor.name.substr(0, prefix.size()) == prefix; };
    if (std::none_of(prefixes.begin(), prefixes.end(), begins) || read_.count(&tensor) || mayBeLeftOut(tensor.name))
      continue;
    fail(Code::modelUnsupported, file.pathOf(tensor), ": tensor ", tensor.name,
         " has no place in a PaliGemma of the sizes that the metadata states; without it the results would be wrong");
  }
}

void Weights::eachMatrix(const std::function<void(const std::string&, const Linear&)>& visit) const {
  visit("token_embd", text.embedding);
  for (size_t i = 0; i < text.layers.size(); ++i)
    for (const auto& [name, matrix, out, in] : kTextMatrices) visit(textLayer(i) + name, text.layers[i].*matrix);
  if (retrieval.weight) visit("retrieval.proj", retrieval);
  if (!vision.projector.weight) return;
  visit("v.patch_embd", vision.patch);
  for (size_t i = 0; i < vision.layers.size(); ++i)
    for (const auto& [name, matrix, out, in] : kVisionMatrices) visit(visionLayer(i) + name, vision.layers[i].*matrix);
  visit("mm.0", vision.projector);
}

}  // namespace pg
