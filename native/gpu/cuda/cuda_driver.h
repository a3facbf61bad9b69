#pragma once
// A Driver over CUDA's driver API: our PTX, one stream, memory of one card.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "gpu/cuda/cuda_context.h"
#include "gpu/cuda/cuda_launches.h"
#include "gpu/cuda/cuda_staging.h"
#include "gpu/cuda/ptx.h"
#include "gpu/driver.h"

namespace pg::gpu::cuda {

class CudaDriver final : public Driver {
 public:
  // A card of listCards(). Fails with deviceUnavailable where it has a problem or does not take our kernels.
  CudaDriver(const Card& card, PtxKernels kernels);
  ~CudaDriver() override;

  const DriverInfo& info() const override { return info_; }
  size_t freeBytes() const override;
  std::unique_ptr<Memory> allocate(size_t bytes) override;
  void upload(const Memory& to, size_t offset, const void* data, size_t bytes) override;
  void download(void* data, const Memory& from, size_t offset, size_t bytes) override;
  void copy(const Memory& to, size_t toOffset, const Memory& from, size_t fromOffset, size_t bytes) override;
  void launch(const char* kernel, Size3 groups, Size3 groupSize, std::span<const uint8_t> args,
              std::span<const Binding> buffers, uint32_t groupMemory = 0) override;
  void begin() override { launches_->begin(); }
  void end(bool complete) override;
  void wait() override;

 private:
  struct Block;
  void chooseKernels(int capability);
  Module compile(const PtxKernel& kernel);
  Function function(const char* name, uint32_t groupMemory);

  std::shared_ptr<CardContext> context_;  // blocks of memory keep it, too
  DriverInfo info_;
  Stream stream_ = nullptr;
  struct Known {
    const PtxKernel* kernel = nullptr;
    Module module = nullptr;   // none: not used so far
    Function function = nullptr;
    uint32_t groupMemory = 48 << 10;  // of its own choice that it may have: so much without asking
  };
  const PtxKernels kernels_;
  std::map<std::string_view, Known> known_;
  std::unique_ptr<Staging> staging_;
  std::unique_ptr<Launches> launches_;
};

}  // namespace pg::gpu::cuda
