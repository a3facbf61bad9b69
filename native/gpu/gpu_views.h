#pragma once
// Views as kernels see them: buffers, strides in values, grids.
#include "base/math.h"
#include "device/device.h"
#include "gpu/driver.h"
#include "gpu/gpu_args.h"

namespace pg::gpu {

// A piece of the driver's memory that goes when nothing that was gathered needs it any more.
struct DeviceMemory : Memory {
  explicit DeviceMemory(std::unique_ptr<Memory> memory, bool file = false)
      : Memory(memory->address, memory->bytes), inner(std::move(memory)), isFile(file) {}
  std::unique_ptr<Memory> inner;
  const bool isFile;  // a mapped model file: blocks lie in it as the file has them
};

inline const DeviceMemory& memoryOf(ConstView view) { return *static_cast<const DeviceMemory*>(view.memory); }

inline Binding bind(ConstView view) {
  if (!view) return {};
  return {memoryOf(view).inner.get(), view.offset};
}

// Values from a row to the next; rows of plain numbers only.
inline uint32_t strideOf(ConstView view) { return view ? uint32_t(view.stride / dtypeInfo(view.type)->bytes) : 0; }

inline uint32_t groupsOf(int64_t n, int64_t perGroup) { return uint32_t(ceilDiv(n, perGroup)); }

// Grids end at 65535 in y and z: kernels walk on from there.
inline constexpr int64_t kMostGroups = 65535;

inline RowArgs rowArgs(ConstView x, ConstView y = {}, ConstView z = {}) {
  return {.rows = uint32_t(x.rows),
          .cols = uint32_t(x.cols),
          .xStride = strideOf(x),
          .yStride = strideOf(y),
          .zStride = strideOf(z),
          .yRows = uint32_t(y.rows),
          .add = 0,
          .number = 0};
}

}  // namespace pg::gpu
