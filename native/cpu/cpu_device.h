#pragma once
// The ops on the CPU: checks shapes, splits work over threads, calls kernels.
#include <vector>

#include "cpu/attention.h"
#include "cpu/gemm.h"
#include "device/device.h"

namespace pg {

class CpuDevice final : public Device {
 public:
  CpuDevice(const Kernels& kernels, int threads);

  const char* name() const override { return "cpu"; }
  std::string isa() const override { return kernels_.isa; }
  int threads() const override { return pool_.threads(); }
  ThreadPool& pool() { return pool_; }

  Buffer allocate(size_t bytes) override;
  void setCancel(const CancelFlag* flag) override;
  Buffer pack(std::span<Linear* const> weights) override;
  void matmul(ConstView x, std::span<const MatmulJob> jobs) override;
  void geglu(View out, ConstView x, const Linear& gate, const Linear& up) override;
  void gelu(View gate, ConstView up) override;
  void embed(View out, ConstView table, std::span<const int32_t> ids, float scale) override;
  void rmsNorm(View out, ConstView x, const float* weight, float eps, bool add) override;
  void layerNorm(View out, ConstView x, const float* weight, const float* bias, float eps) override;
  void rope(View x, std::span<const int64_t> positions, int64_t headDim, float theta) override;
  void storeKv(const KvView& kv, int64_t layer, ConstView k, ConstView v, int64_t position) override;
  void attention(std::span<const AttentionJob> jobs, int64_t layer, float scale, float softcap,
                 Precision precision) override;
  void denseAttention(View out, ConstView q, ConstView k, ConstView v, int64_t heads, float scale,
                      Precision precision) override;
  void add(View x, ConstView y) override;
  void softcap(View x, float cap) override;
  void copy(View out, ConstView in) override;
  void upload(View out, const void* data) override;
  void download(void* data, ConstView in) override;

 private:
  Buffer reserve(size_t bytes);   // not zeroed
  void release(uint8_t* data, size_t bytes) noexcept override;

  const Kernels& kernels_;
  ThreadPool pool_;
  // Cosines and sines of one model's rotation, [position][half cosines, half sines]; grows with the positions seen.
  struct RopeTable {
    int64_t headDim = 0;
    float theta = 0;
    std::vector<float> angles;
  };
  const float* ropeAngles(int64_t positions, int64_t headDim, float theta);

  Gemm gemm_;
  Attention attention_;
  RopeTable rope_;
};

}  // namespace pg
