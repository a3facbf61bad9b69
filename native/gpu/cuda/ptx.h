#pragma once
// Our kernels as PTX, each on its own: the driver compiles those that a model uses, for its card. scripts/build-ptx.mjs
// makes one file of them for all platforms, where there is nvcc; lib/engine/cuda-kernels.ts unpacks it where there is a
// card.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace pg::gpu::cuda {

// One form of a kernel.
struct PtxKernel {
  std::string_view name;
  int capability;  // of the oldest card that takes it: 75, 80
  std::string_view text;  // a NUL follows it
};

struct PtxKernels {
  std::vector<PtxKernel> list;
  std::shared_ptr<const std::string> file = {};  // that the list points into
};

// Each kernel is a line "name capability bytes", so many bytes of text, and a NUL. Fails with deviceUnavailable where
// the file is something else.
PtxKernels readPtx(std::shared_ptr<const std::string> file);

}  // namespace pg::gpu::cuda
