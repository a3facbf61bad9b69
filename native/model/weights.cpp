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

const float* Weights::widened(const GgufFile& file, const GgufTensor& tensor) {
  const ConstView view = file.view(tensor);
  const bool asItIs = tensor.type == DType::f32 && reinterpret_cast<uintptr_t>(view.data) % alignof(float) == 0;
  return asItIs ? view.row<float>(0) : copied(file, tensor);
}

const float* Weights::copied(const GgufFile& file, const GgufTensor& tensor) {
  const ConstView view = file.view(tensor);
  auto copy = std::make_unique<float[]>(size_t(tensor.elements()));
  for (int64_t r = 0; r < view.rows; ++r)
    dequantizeRow(tensor.type, view.row<void>(r), copy.get() + r * view.cols, view.cols);
  copies_.push_back(std::move(copy));
  return copies_.back().get();
}

const float* Weights::vector(const GgufFile& file, const std::string& name, int64_t n) {
  return copied(file, require(file, name, 1, n));
}

Linear Weights::linear(const GgufFile& file, const std::string& name, int64_t out, int64_t in, bool bias) {
  const GgufTensor& tensor = require(file, name + ".weight", out, in);
  Linear linear;
  linear.weight = ConstView(file.view(tensor).data, tensor.type, out, in);
  const DTypeInfo* info = dtypeInfo(tensor.type);
  if (in % info->block)
    fail(Code::modelInvalid, file.path(), ": tensor ", name, ".weight has rows of ", in, " values, no multiple of ",
         info->name, "'s block of ", info->block);
  if (bias) linear.bias = vector(file, name + ".bias", out);
  return linear;
}

void Weights::readText(std::shared_ptr<const GgufFile> file, const TextConfig& c) {
  const GgufFile& f = *file;
  files_.push_back(file);
  text.embedding = linear(f, "token_embd", c.vocab, c.hidden, false);
  if (const GgufTensor* head = f.findTensor("retrieval.proj.weight")) {
    if (head->rows() < 1 || head->rows() > c.vocab)
      fail(Code::modelInvalid, f.path(), ": tensor retrieval.proj.weight has ", head->rows(), " rows, expected 1..",
           c.vocab);
    retrieval = linear(f, "retrieval.proj", head->rows(), c.hidden, true);
  }
  text.outputNorm.weight = vector(f, "output_norm.weight", c.hidden);
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string p = textLayer(size_t(i));
    TextLayer layer;
    layer.attnNorm.weight = vector(f, p + "attn_norm.weight", c.hidden);
    layer.ffnNorm.weight = vector(f, p + "ffn_norm.weight", c.hidden);
    if (c.postNorms) {
      layer.postAttnNorm.weight = vector(f, p + "post_attention_norm.weight", c.hidden);
      layer.postFfnNorm.weight = vector(f, p + "post_ffw_norm.weight", c.hidden);
    }
    for (const auto& [name, matrix, out, in] : kTextMatrices) layer.*matrix = linear(f, p + name, out(c), in(c), false);
    text.layers.push_back(layer);
  }
  checkOwnHead(f);
  checkRopeFactors(f);
  refuseUnread(f, {"blk.", "output", "token_embd", "position_embd", "rope_"});
}

void Weights::readVision(std::shared_ptr<const GgufFile> file, const VisionConfig& c, int64_t textHidden) {
  const GgufFile& f = *file;
  files_.push_back(file);
  vision.patch = linear(f, "v.patch_embd", c.hidden, c.patchValues(), true);
  const float* position = widened(f, require(f, "v.position_embd.weight", c.tokens, c.hidden));
  vision.position = ConstView(reinterpret_cast<const uint8_t*>(position), DType::f32, c.tokens, c.hidden);
  vision.postNorm = {vector(f, "v.post_ln.weight", c.hidden), vector(f, "v.post_ln.bias", c.hidden)};
  for (int64_t i = 0; i < c.layers; ++i) {
    const std::string p = visionLayer(size_t(i));
    VisionLayer layer;
    layer.norm1 = {vector(f, p + "ln1.weight", c.hidden), vector(f, p + "ln1.bias", c.hidden)};
    layer.norm2 = {vector(f, p + "ln2.weight", c.hidden), vector(f, p + "ln2.bias", c.hidden)};
    for (const auto& [name, matrix, out, in] : kVisionMatrices)
      layer.*matrix = linear(f, p + swappedName(f, p, name, c), out(c), in(c), true);
    vision.layers.push_back(layer);
  }
  const bool ours = f.findTensor("mm.0.weight") || !f.findTensor("mm.input_projection.weight");
  vision.projector = linear(f, ours ? "mm.0" : "mm.input_projection", textHidden, c.hidden, true);
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

void Weights::releasePages(const Linear& linear) const {
  const uint8_t* data = linear.weight.row<uint8_t>(0);
  for (const auto& file : files_) {
    if (const MappedFile* map = file->mapOf(data))
      map->release(size_t(data - map->data()), linear.weight.stride * size_t(linear.out()));
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
