#pragma once
// Our kernels as PTX, each on its own: the driver compiles those that a model uses, for its card. scripts/build-ptx.mjs
// makes them where there is nvcc; a build without has none.
#include <span>
#include <string>
#include <string_view>

#include "gpu/cuda/inflate.h"

namespace pg::gpu::cuda {

struct PtxKernel {
  std::string_view name;
  int capability;  // of the oldest card that takes it: 75, 80
  size_t bytes;  // of the text
  std::string_view deflated;

  std::string text() const { return inflate(deflated, bytes); }
};

std::span<const PtxKernel> ptxKernels();

}  // namespace pg::gpu::cuda
