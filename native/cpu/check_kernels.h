#pragma once
// A kernel table against the scalar one on small inputs: at start-up in under 2 ms, so that a miscompiled kernel or a
// broken processor is not used; at length by `paligemma verify`.
#include <vector>

#include "cpu/kernels/common/kernels.h"

namespace pg {

// The worst that a kernel did: the largest difference from the scalar twin, relative to the largest value.
struct KernelCheck {
  const char* kernel;   // the field's name in Kernels
  double error;
  double allowed;       // f32: sums in another order; 8 and 16 bits: the rounding of activations, too

  bool ok() const { return error <= allowed; }   // NaN is not
};

enum class CheckDepth { startup, whole };

// Each kernel that the table has, in the table's order.
std::vector<KernelCheck> checkKernels(const Kernels& kernels, CheckDepth depth);

}  // namespace pg
