#pragma once
// One AdamW step: betas 0.9 and 0.999, eps 1e-8, the decay beside the gradient.
#include <cstdint>
#include <span>

namespace pg {

struct AdamStep {
  int64_t number = 1;   // from 1
  double rate = 0, decay = 0;
  double clip = 0;      // largest norm of all gradients together; 0: any
};

// values, moments m and v, and sums of gradients, which count `factor` times; all equally long.
void adamW(std::span<float> values, std::span<float> m, std::span<float> v, std::span<const float> sums, double factor,
           const AdamStep& step);

}  // namespace pg
