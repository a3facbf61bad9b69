#pragma once
// What a GPU must be able to do for GpuDevice: memory, copies, and launching kernels by name. CUDA, Metal and the
// emulator implement it; nothing above knows which one it is.
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/cancel.h"
#include "device/view.h"

namespace pg::gpu {

struct Size3 {
  uint32_t x = 1, y = 1, z = 1;
};

// A kernel's buffer argument: a byte of a device's memory. None: a null pointer.
struct Binding {
  const Memory* memory = nullptr;
  size_t offset = 0;
};

struct DriverInfo {
  std::string kind;             // "cuda", "metal", "cuda-emulated", "metal-emulated"
  std::string name;             // of the card
  std::string detail;           // compute capability or GPU family, for info and errors
  size_t memoryBytes = 0;       // of the card
  uint32_t groupMemoryBytes = 0;  // shared memory that one group may take
  uint32_t processors = 1;      // multiprocessors: how many groups are worth starting
  bool matrixUnits = false;     // tensor cores / simdgroup matrices (mma16816 and its like) may be used
  bool unified = false;         // host and device share memory
};

class Driver {
 public:
  virtual ~Driver() = default;

  virtual const DriverInfo& info() const = 0;
  virtual size_t freeBytes() const = 0;

  // Zeroed. Fails with outOfMemory, naming what was asked for and what is free.
  virtual std::unique_ptr<Memory> allocate(size_t bytes) = 0;
  // Memory of the host that nobody writes, as kernels see it, without a copy; keeps `data` as long as they may read it.
  // None: where that cannot be done.
  virtual std::unique_ptr<Memory> map(std::shared_ptr<const uint8_t> /*data*/, size_t /*bytes*/) { return nullptr; }
  // The bytes may go when it returns. In order with launches.
  virtual void upload(const Memory& to, size_t offset, const void* data, size_t bytes) = 0;
  // Waits for all that was launched before.
  virtual void download(void* data, const Memory& from, size_t offset, size_t bytes) = 0;
  virtual void copy(const Memory& to, size_t toOffset, const Memory& from, size_t fromOffset, size_t bytes) = 0;

  // Runs after all that was asked before it. `args` is copied. groupMemory: dynamic shared memory in bytes.
  virtual void launch(const char* kernel, Size3 groups, Size3 groupSize, std::span<const uint8_t> args,
                      std::span<const Binding> buffers, uint32_t groupMemory = 0) = 0;

  // Launches in between may be gathered and started together (a graph, a command buffer); `complete` false: they may be
  // thrown away.
  virtual void begin() = 0;
  virtual void end(bool complete) = 0;
  // Waits for everything. Fails with deviceLost.
  virtual void wait() = 0;
};

}  // namespace pg::gpu
