#pragma once
// Parts of GpuDevice that its files share.
#include <string>

#include "gpu/gpu_device.h"
#include "gpu/gpu_views.h"

namespace pg::gpu {

template <class Args>
void GpuDevice::launchValues(const char* kernel, int64_t rows, int64_t cols, const Args& args,
                             std::initializer_list<Binding> buffers) {
  constexpr int64_t kThreads = 256;
  launch(kernel, {groupsOf(cols, kThreads), uint32_t(std::min(rows, kMostGroups)), 1}, kThreads, args, buffers);
}

// The kernel of a family for a type: "product_q4_k".
inline std::string kernelOf(const char* family, DType type) {
  std::string name = family;
  for (const char* c = dtypeName(type); *c; ++c) name += char(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
  return name;
}

// Blocks that kernels want taken apart; plain numbers and what is not computed with stay as they are.
inline bool isTakenApart(DType type) { return dtypeInfo(type)->quantized; }

}  // namespace pg::gpu
