#include "model/extra_tensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "format/quantize.h"

namespace pg {
namespace {

// Relative error of a row that rounding to the narrower of two types leaves at most; block types by their bits.
double tolerance(DType type) {
  const DTypeInfo& info = *dtypeInfo(type);
  if (type == DType::f32) return 0;
  if (type == DType::f16) return 1e-3;
  if (type == DType::bf16) return 8e-3;
  const double bits = 8.0 * double(info.bytes) / double(info.block);
  return bits >= 8 ? 0.02 : bits >= 6 ? 0.06 : bits >= 5 ? 0.12 : bits >= 4 ? 0.25 : 0.5;
}

// Whether two rows are the same values but for rounding.
bool alike(const std::vector<float>& a, const std::vector<float>& b, double most) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double x = a[i], y = b[i];
    difference += (x - y) * (x - y);
    size += std::max(x * x, y * y);
  }
  return difference <= most * most * size;
}

}  // namespace

void checkOwnHead(const GgufFile& file) {
  const GgufTensor* head = file.findTensor("output.weight");
  const GgufTensor* embedding = file.findTensor("token_embd.weight");
  if (!head || !embedding) return;
  const auto refuse = [&](const auto&... why) {
    fail(Code::modelUnsupported, file.pathOf(*head), ": tensor output.weight ", why...,
         " token_embd.weight, but PaliGemma's LM head is its embedding");
  };
  if (head->cols() != embedding->cols()) refuse("has another width than");
  if (!canDequantize(head->type) || !canDequantize(embedding->type)) refuse("has another type than");
  const auto a = file.view(*head), b = file.view(*embedding);
  const int64_t rows = std::min(head->rows(), embedding->rows()), cols = head->cols();
  const size_t bytes = size_t(bytesFor(head->type, cols));
  const double most = std::max(tolerance(head->type), tolerance(embedding->type));
  std::vector<float> x(static_cast<size_t>(cols)), y(static_cast<size_t>(cols));
  for (int64_t r = 0; r < rows; ++r) {
    const auto *p = a.template row<uint8_t>(r), *q = b.template row<uint8_t>(r);
    if (head->type == embedding->type && std::memcmp(p, q, bytes) == 0) continue;
    dequantizeRow(head->type, p, x.data(), cols);
    dequantizeRow(embedding->type, q, y.data(), cols);
    if (!alike(x, y, head->type == embedding->type ? 0 : most)) refuse("differs in row ", r, " from");
  }
}

void checkRopeFactors(const GgufFile& file) {
  const GgufTensor* factors = file.findTensor("rope_freqs.weight");
  if (!factors) return;
  bool ones = canDequantize(factors->type);
  std::vector<float> row(static_cast<size_t>(ones ? factors->cols() : 0));
  const auto view = file.view(*factors);
  for (int64_t r = 0; ones && r < factors->rows(); ++r) {
    dequantizeRow(factors->type, view.template row<uint8_t>(r), row.data(), factors->cols());
    ones = std::all_of(row.begin(), row.end(), [](float factor) { return factor == 1.0f; });
  }
  if (!ones)
    fail(Code::modelUnsupported, file.pathOf(*factors),
         ": tensor rope_freqs.weight scales rotary positions, but PaliGemma uses plain ones");
}

bool mayBeLeftOut(std::string_view name) {
  // the copied head and factors of 1 have been looked at; SigLIP's pooling head is not used
  return name == "output.weight" || name == "rope_freqs.weight" || name.substr(0, 7) == "v.head." ||
         name == "v.position_ids";
}

}  // namespace pg
