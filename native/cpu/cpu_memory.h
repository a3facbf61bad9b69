#pragma once
// The host's memory as a device's: addresses are pointers.
#include <memory>
#include <new>

#include "base/host_view.h"
#include "base/mapped_file.h"
#include "device/view.h"

namespace pg {

inline uint8_t* hostPointer(uint64_t address) { return reinterpret_cast<uint8_t*>(uintptr_t(address)); }

inline HostView onHost(View v) { return {hostPointer(v.address()), v.type, v.rows, v.cols, v.stride}; }
inline ConstHostView onHost(ConstView v) {
  if (!v) return {};
  return {hostPointer(v.address()), v.type, v.rows, v.cols, v.stride};
}
// A vector that may be none.
inline const float* valuesOf(ConstView v) {
  return v ? reinterpret_cast<const float*>(hostPointer(v.address())) : nullptr;
}

// On a cache line, which is as wide as the widest vector. nullptr where there is not so much.
struct AlignedDelete {
  void operator()(uint8_t* p) const { ::operator delete(p, std::align_val_t{64}); }
};
using AlignedBytes = std::unique_ptr<uint8_t, AlignedDelete>;
inline AlignedBytes allocateAligned(size_t bytes) {
  return AlignedBytes(static_cast<uint8_t*>(::operator new(bytes, std::align_val_t{64}, std::nothrow)));
}

class OwnMemory final : public Memory {
 public:
  OwnMemory(AlignedBytes data, size_t size)
      : Memory(reinterpret_cast<uintptr_t>(data.get()), size), data_(std::move(data)) {}

 private:
  AlignedBytes data_;
};

// A file's bytes where they are mapped.
class FileMemory final : public Memory {
 public:
  explicit FileMemory(std::shared_ptr<const MappedFile> file)
      : Memory(reinterpret_cast<uintptr_t>(file->data()), file->size()), file_(std::move(file)) {}

 private:
  std::shared_ptr<const MappedFile> file_;
};

}  // namespace pg
