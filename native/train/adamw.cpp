#include "train/adamw.h"

#include <cmath>

namespace pg {

void adamW(std::span<float> values, std::span<float> m, std::span<float> v, std::span<const float> sums, double factor,
           const AdamStep& step) {
  constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEps = 1e-8;
  const double unbias1 = 1 - std::pow(kBeta1, double(step.number)), unbias2 = 1 - std::pow(kBeta2, double(step.number));
  for (size_t i = 0; i < values.size(); ++i) {
    const double g = double(sums[i]) * factor;
    m[i] = float(kBeta1 * double(m[i]) + (1 - kBeta1) * g);
    v[i] = float(kBeta2 * double(v[i]) + (1 - kBeta2) * g * g);
    const double move = (double(m[i]) / unbias1) / (std::sqrt(double(v[i]) / unbias2) + kEps);
    values[i] = float(double(values[i]) * (1 - step.rate * step.decay) - step.rate * move);
  }
}

}  // namespace pg
