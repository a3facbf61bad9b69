#pragma once
// Our kernels as PTX, each on its own: the driver compiles those that a model uses, for its card. scripts/build-ptx.mjs
// makes them where there is nvcc; a build without has none.
#include <span>
#include <string>
#include <string_view>

#include "gpu/cuda/inflate.h"

namespace pg::gpu::cuda {

// Packed texts count registers back from the latest of their kind, "%f-1" for the next new one: repeated code is then
// repeated text. This gives them their own numbers.
std::string countedFromOne(std::string_view packed);

// One form of a kernel.
struct PtxKernel {
  std::string_view name;
  int capability;  // of the oldest card that takes it: 75, 80
  size_t bytes;  // of the packed text, inflated
  std::string_view deflated;

  std::string text() const { return countedFromOne(inflate(deflated, bytes)); }
};

std::span<const PtxKernel> ptxKernels();

}  // namespace pg::gpu::cuda
