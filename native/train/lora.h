#pragma once
// The pairs A, B that training moves, y += scale * B (A x): their values, the sums of their gradients and the
// optimizer's moments. Values and moments live on the host in f32; the device gets a copy after every step.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/host_tensor.h"
#include "device/device.h"
#include "model/adapters.h"
#include "train/adamw.h"

namespace pg {

// What training starts from.
struct LoraStart {
  double scale = 1;
  // Either "<target>.weight.lora_a" [rank, in] and ".lora_b" [out, rank], without the scale, and perhaps the moments of
  // an earlier run, with ".m" and ".v" behind these names;
  TensorMap tensors;
  // or matrices ("blk.0.attn_q") that get a random A and a B of zeros.
  std::vector<std::string> targets;
  int64_t rank = 8;
  uint64_t seed = 0;
};

class Lora {
 public:
  // Fails with invalidOption or modelInvalid, naming what does not fit the model.
  Lora(Device& device, const Weights& weights, const LoraStart& start);
  Lora(const Lora&) = delete;

  // What a forward pass adds; changes with every step.
  std::shared_ptr<const AdapterSet> set() const { return set_; }
  // Of passes from now on, until the next step.
  void setDropout(const Dropout& dropout) { set_->setDropout(dropout); }
  double scale() const { return scale_; }
  bool trainsVision() const { return adapter_.changesVision; }
  // Whether the matrix is trained; nullptr: it is frozen.
  struct Gradients {
    View a, b;  // sums, as large as A and B
  };
  const Gradients* find(const Linear* linear) const;

  // Values become those after a step along the gradients' sums times `factor`; the sums become zero. Returns the
  // gradient's norm before clipping. Fails with modelInvalid, having changed nothing, where that is not finite.
  double step(const AdamStep& step, double factor);
  void clearGradients();

  // A and B by the names of LoraStart; `moments` too.
  TensorMap tensors(bool moments) const;
  // The sums as they are now, by the same names.
  TensorMap gradients() const;
  int64_t largestRank() const { return adapter_.info.rank; }
  int64_t parameters() const { return adapter_.info.parameters; }

 private:
  // One A or B
  struct Values {
    std::string name;
    std::vector<int64_t> shape;  // as given; the values may be padded with zeros, which stay zeros
    int64_t rows, cols;
    std::vector<float>* data;  // in adapter_
    std::vector<float> m, v;
    size_t offset;  // of its gradient
  };

  void addValues(const TensorMap& start, const std::string& name, std::vector<float>& data, int64_t rows, int64_t cols,
                 size_t& bytes);
  void placeGradients(size_t bytes);
  void update();  // the device's copy
  template <class Use>
  void eachGradient(const Use& use) const;

  Device& device_;
  double scale_;
  Adapter adapter_;
  std::vector<Values> values_;
  Buffer memory_;  // gradients
  std::map<const Linear*, Gradients> gradients_;
  std::shared_ptr<AdapterSet> set_;
};

}  // namespace pg
