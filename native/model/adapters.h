#pragma once
// LoRA adapters: low-rank additions y += scale * B (A x) to the model's matrices, chosen per request.
#include <list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/host_tensor.h"
#include "device/device.h"
#include "model/weights.h"

namespace pg {

// A LoRA adapter: a GGUF file, or tensors "<name>.weight.lora_a" [rank, in] and ".lora_b" [out, rank], the latter
// already multiplied by alpha / rank.
struct AdapterSource {
  std::string name;  // how messages call it
  std::string path;  // GGUF; empty: `tensors`
  TensorMap tensors;
  float scale = 1;   // of requests that choose none
};

struct AdapterUse {
  int64_t index = 0;  // in LoadOptions::adapters
  float scale = 1;
};

struct AdapterInfo {
  std::string name;
  float scale = 1;
  int64_t rank = 0, targets = 0, parameters = 0;  // largest rank, matrices changed
};

// One file's matrices on the host, checked against the model. B holds alpha / rank already.
struct Adapter {
  struct Update {
    std::string target;        // "blk.0.attn_q"
    const Linear* linear;
    int64_t rank;
    std::vector<float> a, b;   // [rank, in], [out, rank]
  };
  AdapterInfo info;
  std::vector<Update> updates;
  bool changesVision = false;  // a picture's features depend on it
};

// Fails with modelInvalid, listing every name that does not fit; `where` names the source, B is as it will be
// multiplied.
Adapter makeAdapter(const std::string& where, const TensorMap& tensors, const Weights& weights);

// What the rows of one request add: several adapters stacked into one pair of products per matrix.
class AdapterSet {
 public:
  struct Product {
    Linear down, up;           // [rank, in], [out, rank] f32, scales folded into up
    uint64_t id = 0;           // of the matrix, from its name
  };
  AdapterSet(Device& device, std::span<const std::pair<const Adapter*, float>> uses);

  // Of what enters `down`, while training; whoever trains sets it for one example at a time.
  void setDropout(const Dropout& dropout) { dropout_ = dropout; }
  bool drops() const { return dropout_.rate > 0; }
  Dropout dropout(const Product& product) const { return dropout_.of(product.id); }

  int64_t largestRank() const { return largestRank_; }
  int64_t widestInput() const { return widestInput_; }

  const Product* find(const Linear* linear) const {
    const auto found = products_.find(linear);
    return found == products_.end() ? nullptr : &found->second;
  }

 private:
  Buffer memory_;
  std::map<const Linear*, Product> products_;
  int64_t largestRank_ = 0, widestInput_ = 0;
  Dropout dropout_;
};

// Adapters as a sequence holds them; `set` is null where none is in use.
struct AdapterChoice {
  std::shared_ptr<const AdapterSet> set;
  std::string key;             // equal where every result is
  std::string visionKey;       // equal where the features of a picture are
};

// All adapters of a loaded model. Used by the engine's thread alone.
class Adapters {
 public:
  explicit Adapters(Device& device) : device_(device) {}

  // Returns its index. Fails with modelInvalid or modelUnsupported, listing every name that does not fit.
  size_t load(const AdapterSource& source, const Weights& weights, const std::string& architecture);
  std::vector<AdapterInfo> info() const;

  // nullptr: all, with the scales they were loaded with. Fails with invalidOption.
  AdapterChoice choose(const std::vector<AdapterUse>* uses);

 private:
  Device& device_;
  std::vector<std::unique_ptr<Adapter>> adapters_;
  std::list<AdapterChoice> built_;   // most recent first
};

}  // namespace pg
