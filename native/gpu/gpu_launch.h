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

// Whether the type's blocks are taken apart on rows of the device's own; plain numbers, and what is not computed with,
// stay as they are.
inline bool isTakenApart(DType type) { return dtypeInfo(type)->quantized; }

// Whether they were: those of a mapped file are not.
inline bool isTakenApart(ConstView view) { return isTakenApart(view.type) && !memoryOf(view).isFile; }

// The kernel of a family for a type: "store_kv_q8_0".
inline std::string kernelOf(const char* family, DType type) {
  std::string name = family;
  for (const char* c = dtypeName(type); *c; ++c) name += char(*c >= 'A' && *c <= 'Z' ? *c - 'A' + 'a' : *c);
  return name;
}

// The kernel of a family for weights: "tile_q4_k", "tile_q4_k_file".
inline std::string kernelOf(const char* family, ConstView weight) {
  const bool inBlocks = isTakenApart(weight.type) && !isTakenApart(weight);
  return kernelOf(family, weight.type) + (inBlocks ? "_file" : "");
}

}  // namespace pg::gpu
