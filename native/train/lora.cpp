#include "train/lora.h"

#include <algorithm>
#include <cmath>

#include "base/math.h"
#include "format/quantize.h"

namespace pg {
namespace {

// Uniform in -1..1, the same everywhere.
float uniform(uint64_t seed, uint64_t at) {
  const uint64_t bits = randomBits(seed ^ at * 0xd1342543de82ef95ull, at);
  return float(double(bits >> 11) / double(uint64_t(1) << 52) - 1);
}

uint64_t seedOf(uint64_t seed, const std::string& name) {
  for (const char c : name) seed = (seed ^ uint8_t(c)) * 0x100000001b3ull;   // FNV-1a
  return seed;
}

// Rows of a matrix without those of zeros at its end, which pad SigLIP's feed-forward to whole blocks.
int64_t usedRows(Device& device, const Linear& linear) {
  std::vector<uint8_t> bytes(linear.weight.stride);
  std::vector<float> row(size_t(linear.in()));
  for (int64_t r = linear.out(); r > 0; --r) {
    device.download(bytes.data(), linear.weight.slice(r - 1, 1));
    dequantizeRow(linear.weight.type, bytes.data(), row.data(), linear.in());
    if (std::any_of(row.begin(), row.end(), [](float x) { return x != 0; })) return r;
  }
  return linear.out();
}

// As PEFT begins: A uniform within 1 / sqrt(in), B zeros.
TensorMap randomStart(Device& device, const Weights& weights, const LoraStart& start) {
  TensorMap tensors;
  weights.eachMatrix([&](const std::string& name, const Linear& linear) {
    const bool vision = name.starts_with("v.blk.");
    if (std::find(start.targets.begin(), start.targets.end(), name) == start.targets.end()) return;
    int64_t in = linear.in(), out = linear.out();
    if (vision && name.ends_with(".ffn_up")) out = usedRows(device, linear);
    if (vision && name.ends_with(".ffn_down"))
      weights.eachMatrix([&](const std::string& other, const Linear& up) {
        if (other == name.substr(0, name.size() - 4) + "up") in = usedRows(device, up);
      });
    HostTensor a{{start.rank, in}, std::vector<float>(size_t(start.rank * in))};
    const float bound = 1 / std::sqrt(float(in));
    const uint64_t seed = seedOf(start.seed, name);
    for (size_t i = 0; i < a.data.size(); ++i) a.data[i] = uniform(seed, i) * bound;
    tensors.emplace(name + ".weight.lora_a", std::move(a));
    tensors.emplace(name + ".weight.lora_b",
                    HostTensor{{out, start.rank}, std::vector<float>(size_t(out * start.rank))});
  });
  for (const std::string& target : start.targets)
    if (!tensors.count(target + ".weight.lora_a"))
      fail(Code::invalidOption, "Expected names of this model's matrices for targets but received ", target);
  return tensors;
}

bool isMoment(std::string_view name) { return name.ends_with(".m") || name.ends_with(".v"); }

// Row-major values from one width and height to others: cut, or filled up with zeros.
std::vector<float> resized(const std::vector<float>& from, int64_t rows, int64_t cols, int64_t toRows, int64_t toCols) {
  std::vector<float> to(size_t(toRows * toCols));
  for (int64_t r = 0; r < std::min(rows, toRows); ++r)
    std::copy_n(from.data() + r * cols, std::min(cols, toCols), to.data() + r * toCols);
  return to;
}

}  // namespace

Lora::Lora(Device& device, const Weights& weights, const LoraStart& start) : device_(device), scale_(start.scale) {
  const TensorMap made = start.tensors.empty() ? randomStart(device, weights, start) : TensorMap();
  const TensorMap& given = start.tensors.empty() ? made : start.tensors;
  TensorMap pairs;
  for (const auto& [name, tensor] : given)
    if (!isMoment(name)) pairs.emplace(name, tensor);
  adapter_ = makeAdapter("The adapter to start from", pairs, weights);
  size_t bytes = 0;
  for (Adapter::Update& update : adapter_.updates) {
    if (update.target == "v.patch_embd" || update.target == "retrieval.proj")
      fail(Code::modelUnsupported, "The adapter to start from changes ", update.target, ", which is not trained here");
    addValues(given, update.target + ".weight.lora_a", update.a, update.rank, update.linear->in(), bytes);
    addValues(given, update.target + ".weight.lora_b", update.b, update.linear->out(), update.rank, bytes);
  }
  placeGradients(bytes);
  update();
}

void Lora::addValues(const TensorMap& start, const std::string& name, std::vector<float>& data, int64_t rows,
                     int64_t cols, size_t& bytes) {
  Values values{name, start.find(name)->second.shape, rows, cols, &data, {}, {}, bytes};
  const auto moments = [&](const char* kind) {
    const auto found = start.find(name + kind);
    if (found == start.end()) return std::vector<float>(data.size());
    if (found->second.shape != values.shape)
      fail(Code::modelInvalid, "The checkpoint's ", name, kind, " has another shape than ", name);
    return resized(found->second.data, values.shape[0], values.shape[1], rows, cols);
  };
  values.m = moments(".m");
  values.v = moments(".v");
  bytes += roundUp<size_t>(data.size() * sizeof(float), 64);
  values_.push_back(std::move(values));
}

void Lora::placeGradients(size_t bytes) {
  memory_ = device_.allocate(bytes);   // zeros
  for (size_t i = 0; i < values_.size(); i += 2) {
    const auto view = [&](const Values& v) { return memory_.view(DType::f32, v.rows, v.cols, v.offset); };
    gradients_[adapter_.updates[i / 2].linear] = {view(values_[i]), view(values_[i + 1])};
  }
}

void Lora::update() {
  const std::pair<const Adapter*, float> use{&adapter_, float(scale_)};
  set_ = nullptr;   // free first
  set_ = std::make_shared<AdapterSet>(device_, std::span(&use, 1));
}

const Lora::Gradients* Lora::find(const Linear* linear) const {
  const auto found = gradients_.find(linear);
  return found == gradients_.end() ? nullptr : &found->second;
}

// Calls use(index into values_, the sums) in order.
template <class Use>
void Lora::eachGradient(const Use& use) const {
  std::vector<float> sums;
  for (size_t i = 0; i < values_.size(); ++i) {
    const Values& v = values_[i];
    sums.resize(size_t(v.rows * v.cols));
    device_.download(sums.data(), memory_.view(DType::f32, v.rows, v.cols, v.offset));
    use(i, sums);
  }
}

double Lora::step(const AdamStep& step, double factor) {
  double squares = 0;
  eachGradient([&](size_t, const std::vector<float>& sums) {
    for (const float g : sums) squares += double(g) * double(g);
  });
  const double norm = std::sqrt(squares) * factor;
  if (!std::isfinite(norm)) fail(Code::modelInvalid, "The gradients are not finite. Lower learningRate, or set clip");
  const double clip = step.clip > 0 ? std::min(1.0, step.clip / (norm + 1e-6)) : 1;
  eachGradient([&](size_t i, const std::vector<float>& sums) {
    Values& v = values_[i];
    adamW(*v.data, v.m, v.v, sums, factor * clip, step);
  });
  clearGradients();
  update();
  return norm;
}

void Lora::clearGradients() {
  std::vector<float> zeros;
  for (const Values& v : values_) {
    zeros.resize(std::max(zeros.size(), size_t(v.rows * v.cols)));
    device_.upload(memory_.view(DType::f32, v.rows, v.cols, v.offset), zeros.data());
  }
}

TensorMap Lora::tensors(bool moments) const {
  TensorMap tensors;
  for (const Values& v : values_) {
    const auto cut = [&](const std::vector<float>& data) {
      return HostTensor{v.shape, resized(data, v.rows, v.cols, v.shape[0], v.shape[1])};
    };
    tensors.emplace(v.name, cut(*v.data));
    if (!moments) continue;
    tensors.emplace(v.name + ".m", cut(v.m));
    tensors.emplace(v.name + ".v", cut(v.v));
  }
  return tensors;
}

TensorMap Lora::gradients() const {
  TensorMap tensors;
  eachGradient([&](size_t i, const std::vector<float>& sums) {
    const Values& v = values_[i];
    tensors.emplace(v.name, HostTensor{v.shape, resized(sums, v.rows, v.cols, v.shape[0], v.shape[1])});
  });
  return tensors;
}

}  // namespace pg
