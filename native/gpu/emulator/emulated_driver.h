#pragma once
// A Driver without a GPU: kernels of either dialect, compiled for the CPU, run by simt.h. What is launched between
// begin() and end() runs at the end, or when somebody looks.
#include <functional>
#include <set>

#include "base/thread_pool.h"
#include "gpu/driver.h"
#include "gpu/emulator/kernel_table.h"
#include "gpu/emulator/simt.h"

namespace pg::gpu {

struct EmulatorOptions {
  std::string kind = "cuda-emulated";
  const KernelTable* kernels = &cudaKernels();
  int threads = 1;                    // groups that run at the same time
  bool bothOrders = false;            // run all twice, threads in another order, and fail where a bit differs
  size_t memoryBytes = size_t(8) << 30;
  uint32_t groupMemoryBytes = 48 << 10;
  uint32_t processors = 4;
  bool matrixUnits = true;
  bool unified = false;
  int64_t launchesUntilLost = -1;     // then the device is lost, as after a reset; -1: never
};

class EmulatedDriver final : public Driver {
 public:
  explicit EmulatedDriver(EmulatorOptions options = {});
  ~EmulatedDriver() override;

  const DriverInfo& info() const override { return info_; }
  size_t freeBytes() const override { return options_.memoryBytes - usedBytes_; }
  std::unique_ptr<Memory> allocate(size_t bytes) override;
  std::unique_ptr<Memory> map(std::shared_ptr<const uint8_t> data, size_t bytes) override;
  void upload(const Memory& to, size_t offset, const void* data, size_t bytes) override;
  void download(void* data, const Memory& from, size_t offset, size_t bytes) override;
  void copy(const Memory& to, size_t toOffset, const Memory& from, size_t fromOffset, size_t bytes) override;
  void launch(const char* kernel, Size3 groups, Size3 groupSize, std::span<const uint8_t> args,
              std::span<const Binding> buffers, uint32_t groupMemory = 0) override;
  void begin() override;
  void end(bool complete) override;
  void wait() override;

 private:
  struct Block;
  class Open;
  simt::Launch prepare(const char* name, Size3 groups, Size3 groupSize, std::span<const uint8_t> args,
                       std::span<const Binding> buffers, uint32_t groupMemory) const;
  void later(std::function<void()> work);
  void run(const simt::Launch& launch);
  void runGroups(const simt::Launch& launch, simt::Order order);
  std::vector<std::vector<uint8_t>> contents() const;
  uint8_t* bytesOf(const Memory& memory, size_t offset, size_t bytes) const;

  EmulatorOptions options_;
  DriverInfo info_;
  ThreadPool pool_;
  std::vector<std::unique_ptr<simt::Runner>> runners_;  // one for each thread of the pool
  std::set<Block*> blocks_;
  size_t usedBytes_ = 0;
  std::vector<std::function<void()>> queue_;
  bool gathering_ = false;
};

}  // namespace pg::gpu
