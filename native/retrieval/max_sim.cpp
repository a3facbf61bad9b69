#include "retrieval/max_sim.h"

#include <cstring>

#include "base/error.h"
#include "base/math.h"
#include "cpu/cpu_info.h"

namespace pg {
namespace {

// Query tokens in panels of `lanes`: value i of a group of a lane of a panel of [panels][groups][lanes][group].
template <class Out, class In>
void packPanels(Out* out, const In* rows, int64_t tokens, int64_t values, int64_t lanes, int64_t group) {
  const int64_t groups = ceilDiv(values, group);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t k = 0; k < values; ++k)
      out[((t / lanes * groups + k / group) * lanes + t % lanes) * group + k % group] = Out(rows[t * values + k]);
}

}  // namespace

const MaxSimKernels* maxSimKernelsFor(const std::string& isa) {
  if (!kernelsFor(isa)) return nullptr;
#if defined(__x86_64__) || defined(_M_X64)
  if (isa == kMaxSimAvx512Vnni.isa) return &kMaxSimAvx512Vnni;
  if (isa != kKernelsScalar.isa) return &kMaxSimAvx2;
#elif defined(__aarch64__) || defined(_M_ARM64)
  if (isa == kMaxSimNeonDotprod.isa || isa == kKernelsNeonI8mm.isa) return &kMaxSimNeonDotprod;
  if (isa == kMaxSimNeon.isa) return &kMaxSimNeon;
#endif
  return &kMaxSimScalar;
}

const MaxSimKernels& chooseMaxSimKernels() { return *maxSimKernelsFor(chooseKernels().isa); }

void widenBits(const uint8_t* rows, int64_t tokens, int64_t dims, uint8_t* words) {
  const size_t from = size_t(bitBytes(dims)), to = size_t(bitWords(dims)) * 8;
  for (int64_t t = 0; t < tokens; ++t) {
    std::memcpy(words + size_t(t) * to, rows + size_t(t) * from, from);
    std::memset(words + size_t(t) * to + from, 0, to - from);
  }
}

MaxSimQuery::MaxSimQuery(const MaxSimKernels& kernels, const Vectors& query)
    : kernels_(&kernels), type_(query.type), tokens_(query.tokens), dims_(query.dims) {
  if (dims_ < 1 || dims_ > kMaxVectorDims)
    fail(Code::invalidOption, "Expected vectors of 1 to ", kMaxVectorDims, " values but received ", dims_);
  lanes_ = type_ == VectorType::binary ? kernels.bitLanes : kernels.lanes;
  panels_ = ceilDiv(tokens_, lanes_);
  const size_t rows = size_t(panels_ * lanes_);
  switch (type_) {
    case VectorType::f32:
      packed_.resize(rows * size_t(dims_) * sizeof(float));
      packPanels(reinterpret_cast<float*>(packed_.data()), static_cast<const float*>(query.data), tokens_, dims_,
                 lanes_, 1);
      break;
    case VectorType::int8: {
      const int64_t group = kernels.group;
      const size_t values = rows * size_t(roundUp(dims_, group));
      const auto* from = static_cast<const int8_t*>(query.data);
      packed_.resize(values * (group == 4 ? 1 : 2));
      if (group == 4) packPanels(reinterpret_cast<int8_t*>(packed_.data()), from, tokens_, dims_, lanes_, group);
      else packPanels(reinterpret_cast<int16_t*>(packed_.data()), from, tokens_, dims_, lanes_, group);
      scales_.assign(query.scales, query.scales + tokens_);
      break;
    }
    case VectorType::binary: {
      const int64_t words = bitWords(dims_);
      std::vector<uint64_t> wide(size_t(tokens_ * words));
      widenBits(static_cast<const uint8_t*>(query.data), tokens_, dims_, reinterpret_cast<uint8_t*>(wide.data()));
      packed_.resize(rows * size_t(words) * 8);
      packPanels(reinterpret_cast<uint64_t*>(packed_.data()), wide.data(), tokens_, words, lanes_, 1);
      break;
    }
  }
}

double MaxSimQuery::score(const Vectors& page, float* scratch) const {
  if (page.tokens == 0 || tokens_ == 0) return 0;
  if (type_ == VectorType::binary) {
    static_assert(sizeof(int32_t) == sizeof(float));
    int32_t* best = reinterpret_cast<int32_t*>(scratch);
    kernels_->bits(reinterpret_cast<const uint64_t*>(packed_.data()), panels_, static_cast<const uint8_t*>(page.data),
                   page.tokens, bitWords(dims_), best);
    int64_t differing = 0;
    for (int64_t t = 0; t < tokens_; ++t) differing += best[t];
    return double(tokens_) - 2 * double(differing) / double(dims_);
  }
  double sum = 0;
  if (type_ == VectorType::f32) {
    kernels_->f32(reinterpret_cast<const float*>(packed_.data()), panels_, static_cast<const float*>(page.data),
                  page.tokens, dims_, scratch);
    for (int64_t t = 0; t < tokens_; ++t) sum += double(scratch[t]);
  } else {
    kernels_->int8(packed_.data(), panels_, static_cast<const int8_t*>(page.data), page.scales, page.tokens, dims_,
                   scratch);
    for (int64_t t = 0; t < tokens_; ++t) sum += double(scratch[t]) * double(scales_[size_t(t)]);
  }
  return sum;
}

}  // namespace pg
