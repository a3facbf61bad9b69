#include "model/adapters.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>

#include "base/math.h"
#include "format/gguf.h"
#include "format/quantize.h"

namespace pg {
namespace {

uint64_t idOf(const std::string& name) {
  uint64_t id = 0;
  for (const char c : name) id = (id ^ uint8_t(c)) * 0x100000001b3ull;   // FNV-1a
  return id;
}

// Stacked copies kept for requests to come; beyond these a switch costs one copy of the adapters' matrices.
constexpr size_t kBuiltSets = 8;

// A list for a message: the first few, and how many more.
std::string someOf(const std::vector<std::string>& names) {
  constexpr size_t kMost = 8;
  std::string text;
  for (size_t i = 0; i < std::min(names.size(), kMost); ++i) text += (i ? ", " : "") + names[i];
  if (names.size() > kMost) text += " and " + std::to_string(names.size() - kMost) + " more";
  return text;
}

// llama.cpp's layout: B (A x) * alpha / rank, the rank being that of each pair; alpha 0 means no factor.
TensorMap readTensors(const GgufFile& file, double alpha) {
  TensorMap tensors;
  for (const GgufTensor& t : file.tensors()) {
    if (!canDequantize(t.type))
      fail(Code::modelUnsupported, file.path(), ": tensor ", t.name, " has type ", dtypeName(t.type),
           ", which holds no weights");
    HostTensor tensor{{t.rows(), t.cols()}, std::vector<float>(size_t(t.elements()))};
    const ConstHostView view = file.view(t);
    for (int64_t r = 0; r < view.rows; ++r)
      dequantizeRow(t.type, view.row<void>(r), tensor.data.data() + r * view.cols, view.cols);
    if (t.name.ends_with(".lora_b") && alpha != 0)
      for (float& value : tensor.data) value *= float(alpha / double(t.cols()));
    tensors.emplace(std::string(t.name), std::move(tensor));
  }
  return tensors;
}

TensorMap readGguf(const AdapterSource& source, const std::string& architecture) {
  const auto file = GgufFile::open(source.path);
  const auto require = [&](const char* key, const std::string& wanted, const char* advice) {
    const auto value = file->string(key);
    if (!value || *value != wanted)
      fail(Code::modelUnsupported, source.path, ": metadata key ", key, " is ",
           value ? "\"" + std::string(*value) + "\"" : "missing", ", expected \"", wanted, "\"; ", advice);
  };
  require("general.type", "adapter", "give a LoRA adapter as GGUF, or a PEFT directory");
  require("adapter.type", "lora", "only LoRA adapters are supported");
  require("general.architecture", architecture, "the adapter was made for another model");
  if (file->find("adapter.alora.invocation_tokens"))
    fail(Code::modelUnsupported, source.path,
         ": metadata key adapter.alora.invocation_tokens makes it an activated LoRA, ",
         "which works from these tokens on only; adapters are applied to whole requests here");
  const double alpha = file->number("adapter.lora.alpha").value_or(0);
  if (!std::isfinite(alpha)) fail(Code::modelInvalid, source.path, ": metadata key adapter.lora.alpha is not finite");
  return file->whole([&] { return readTensors(*file, alpha); });
}

// Pads [rows, cols] with zeros to [toRows, toCols].
std::vector<float> padded(std::vector<float> values, int64_t rows, int64_t cols, int64_t toRows, int64_t toCols) {
  if (rows == toRows && cols == toCols) return values;
  std::vector<float> out(size_t(toRows * toCols));
  for (int64_t r = 0; r < rows; ++r) std::copy_n(values.data() + r * cols, cols, out.data() + r * toCols);
  return out;
}

// What does not fit the model, for one message.
struct Misfits {
  std::vector<std::string> unknown, unpaired, misshapen, broken;

  void throwIfAny(const std::string& where) const {
    std::string problems;
    const auto report = [&](const char* what, const std::vector<std::string>& names) {
      if (!names.empty()) problems += (problems.empty() ? "" : "; ") + std::string(what) + ": " + someOf(names);
    };
    report("no such matrix in this model", unknown);
    report("only one of lora_a and lora_b", unpaired);
    report("wrong shape", misshapen);
    report("values that are not finite", broken);
    if (!problems.empty())
      fail(Code::modelInvalid, where, ": the adapter does not fit this model (", problems,
           "); load the model that it was trained on");
  }
};

// B (A x) for a matrix, or none where the shapes do not fit it.
std::optional<Adapter::Update> updateOf(const std::string& target, const Linear& linear, const HostTensor& a,
                                        const HostTensor& b, Misfits& misfits) {
  const int64_t in = linear.in(), out = linear.out();
  // SigLIP's feed-forward may be stored wider than it was trained, with zeros: so is what an adapter adds to it
  const bool mayPad = target.starts_with("v.blk.");
  const bool wide = target.ends_with(".ffn_up"), tall = target.ends_with(".ffn_down");
  const bool fits = a.shape.size() == 2 && b.shape.size() == 2 && a.shape[0] == b.shape[1] && a.shape[0] > 0 &&
                    (a.shape[1] == in || (mayPad && tall && a.shape[1] > 0 && a.shape[1] < in)) &&
                    (b.shape[0] == out || (mayPad && wide && b.shape[0] > 0 && b.shape[0] < out));
  if (!fits) {
    misfits.misshapen.push_back(target + ".weight: " + shapeText(b.shape) + " x " + shapeText(a.shape) + " for [" +
                                std::to_string(out) + ", " + std::to_string(in) + "]");
    return std::nullopt;
  }
  const auto finite = [](float x) { return std::isfinite(x); };
  if (!std::all_of(a.data.begin(), a.data.end(), finite) || !std::all_of(b.data.begin(), b.data.end(), finite))
    misfits.broken.push_back(target + ".weight");
  const int64_t rank = a.shape[0];
  return Adapter::Update{target, &linear, rank, padded(a.data, rank, a.shape[1], rank, in),
                         padded(b.data, b.shape[0], rank, out, rank)};
}

}  // namespace

Adapter makeAdapter(const std::string& where, const TensorMap& tensors, const Weights& weights) {
  Adapter adapter;
  std::map<std::string, const Linear*> linears;
  weights.eachMatrix([&](const std::string& name, const Linear& linear) {
    if (name != "token_embd")
      linears[name] = &linear;   // looked up as well as multiplied: an update beside it would miss the look-ups
  });

  Misfits misfits;
  for (const auto& [name, tensor] : tensors) {
    const bool isA = name.ends_with(".weight.lora_a"), isB = name.ends_with(".weight.lora_b");
    if (!isA && !isB) {
      misfits.unknown.push_back(name);
      continue;
    }
    const std::string target = name.substr(0, name.size() - std::strlen(".weight.lora_a"));
    const auto other = tensors.find(target + (isA ? ".weight.lora_b" : ".weight.lora_a"));
    if (other == tensors.end()) misfits.unpaired.push_back(name);
    const auto linear = linears.find(target);
    if (isB) continue;                 // the rest is said once per pair
    if (linear == linears.end()) misfits.unknown.push_back(target + ".weight");
    if (other == tensors.end() || linear == linears.end()) continue;
    auto update = updateOf(target, *linear->second, tensor, other->second, misfits);
    if (!update) continue;
    adapter.changesVision |= target.starts_with("v.") || target.starts_with("mm.");
    adapter.info.rank = std::max(adapter.info.rank, update->rank);
    adapter.info.parameters += int64_t(tensor.data.size() + other->second.data.size());
    adapter.updates.push_back(std::move(*update));
  }
  misfits.throwIfAny(where);
  if (adapter.updates.empty()) fail(Code::modelInvalid, where, ": the adapter holds no tensors");
  adapter.info.targets = int64_t(adapter.updates.size());
  return adapter;
}

size_t Adapters::load(const AdapterSource& source, const Weights& weights, const std::string& architecture) {
  TensorMap fromFile;
  if (!source.path.empty()) fromFile = readGguf(source, architecture);
  const TensorMap& tensors = source.path.empty() ? source.tensors : fromFile;
  const std::string& where = source.path.empty() ? source.name : source.path;
  auto adapter = std::make_unique<Adapter>(makeAdapter(where, tensors, weights));
  adapter->info.name = source.name;
  adapter->info.scale = source.scale;
  adapters_.push_back(std::move(adapter));
  return adapters_.size() - 1;
}

std::vector<AdapterInfo> Adapters::info() const {
  std::vector<AdapterInfo> list;
  for (const auto& adapter : adapters_) list.push_back(adapter->info);
  return list;
}

AdapterChoice Adapters::choose(const std::vector<AdapterUse>* uses) {
  // by index and without those that add nothing: the order in which they are named must not change a bit
  std::vector<std::optional<float>> scales(adapters_.size());
  if (!uses)
    for (size_t i = 0; i < adapters_.size(); ++i) scales[i] = adapters_[i]->info.scale;
  else
    for (const AdapterUse& use : *uses) {
      if (use.index < 0 || use.index >= int64_t(adapters_.size()))
        fail(Code::invalidOption, "Expected adapters to be among the ", adapters_.size(),
             " loaded ones but received number ", use.index);
      if (scales[size_t(use.index)])
        fail(Code::invalidOption, "Expected each adapter once for adapters but received ",
             adapters_[size_t(use.index)]->info.name, " twice");
      if (!std::isfinite(use.scale))
        fail(Code::invalidOption, "Expected a finite scale for adapter ", adapters_[size_t(use.index)]->info.name);
      scales[size_t(use.index)] = use.scale;
    }
  std::vector<std::pair<const Adapter*, float>> used;
  std::string key, visionKey;
  for (size_t i = 0; i < scales.size(); ++i) {
    if (scales[i].value_or(0) == 0) continue;
    used.push_back({adapters_[i].get(), *scales[i]});
    std::string part(sizeof i + sizeof(float), '\0');
    std::memcpy(part.data(), &i, sizeof i);
    std::memcpy(part.data() + sizeof i, &*scales[i], sizeof(float));
    key += part;
    if (adapters_[i]->changesVision) visionKey += part;
  }
  if (used.empty()) return {};
  const auto known =
      std::find_if(built_.begin(), built_.end(), [&](const AdapterChoice& choice) { return choice.key == key; });
  if (known != built_.end()) built_.splice(built_.begin(), built_, known);
  else built_.push_front({std::make_shared<AdapterSet>(device_, used), key, visionKey});
  if (built_.size() > kBuiltSets) built_.pop_back();   // sequences that run keep theirs
  return built_.front();
}

AdapterSet::AdapterSet(Device& device, std::span<const std::pair<const Adapter*, float>> uses) {
  std::map<const Linear*, int64_t> ranks;
  for (const auto& [adapter, scale] : uses)
    for (const auto& update : adapter->updates) ranks[update.linear] += update.rank;
  const auto bytesOf = [](int64_t rows, int64_t cols) {
    return roundUp<size_t>(size_t(rows * cols) * sizeof(float), 64);
  };
  size_t bytes = 0;
  for (const auto& [linear, rank] : ranks) {
    bytes += bytesOf(rank, linear->in()) + bytesOf(linear->out(), rank);
    largestRank_ = std::max(largestRank_, rank);
    widestInput_ = std::max(widestInput_, linear->in());
  }
  memory_ = device.allocate(bytes);

  size_t next = 0;
  std::vector<float> down, up;
  for (const auto& [linear, rank] : ranks) {
    const int64_t in = linear->in(), out = linear->out();
    down.assign(size_t(rank * in), 0);
    up.assign(size_t(out * rank), 0);
    int64_t row = 0;
    Product product;
    for (const auto& [adapter, scale] : uses)
      for (const auto& update : adapter->updates) {
        if (update.linear != linear) continue;
        product.id = idOf(update.target);
        std::copy(update.a.begin(), update.a.end(), down.begin() + row * in);
        for (int64_t o = 0; o < out; ++o)
          for (int64_t r = 0; r < update.rank; ++r)
            up[size_t(o * rank + row + r)] = update.b[size_t(o * update.rank + r)] * scale;
        row += update.rank;
      }
    const View downView = memory_.view(DType::f32, rank, in, next);
    next += bytesOf(rank, in);
    const View upView = memory_.view(DType::f32, out, rank, next);
    next += bytesOf(out, rank);
    device.upload(downView, down.data());
    device.upload(upView, up.data());
    product.down.weight = downView;
    product.up.weight = upView;
    products_.emplace(linear, product);
  }
}

}  // namespace pg
