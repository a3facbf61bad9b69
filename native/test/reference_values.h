#pragma once
// Random inputs, and functions in double precision that results are compared with.
#include <cmath>
#include <random>
#include <vector>

namespace pg::test {

inline std::vector<float> randoms(size_t n, unsigned seed, float scale = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> x(n);
  for (float& v : x) v = normal(generator);
  return x;
}

inline double geluTanh(double x) { return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }

}  // namespace pg::test
