#pragma once
// The backward pass of a product with an adapted matrix: y = x W^T + scale * (x A^T) B^T. W stays as it is.
#include "device/arena.h"
#include "train/lora.h"

namespace pg {

class LinearGrad {
 public:
  LinearGrad(Device& device, Lora& lora) : device_(device), lora_(lora) {}

  // The gradients of A and B grow by this product's; dx (or none) becomes, or with `add` grows by, the gradient of x.
  // `arena` has scratchBytes(rows).
  void operator()(Arena& arena, View dx, ConstView dy, ConstView x, const Linear& linear, bool add = false) const;
  bool trains(const Linear& linear) const { return lora_.find(&linear) != nullptr; }
  size_t scratchBytes(int64_t rows) const;

 private:
  bool drops() const { return lora_.set()->drops(); }

  Device& device_;
  Lora& lora_;
};

}  // namespace pg
