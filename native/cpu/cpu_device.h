#pragma once
// The ops on the CPU: splits work over threads, calls kernels. Its memory is the host's.
#include <algorithm>
#include <vector>

#include "cpu/attention.h"
#include "cpu/attention_grad.h"
#include "cpu/cpu_memory.h"
#include "cpu/gemm.h"
#include "cpu/packed_weights.h"
#include "cpu/products.h"
#include "device/device.h"

namespace pg {

class CpuDevice final : public Device {
 public:
  CpuDevice(const Kernels& kernels, int threads);

  const char* name() const override { return "cpu"; }
  std::string isa() const override { return kernels_.isa; }
  int threads() const override { return pool_.threads(); }
  DeviceLimits limits() const override;
  void setCancel(const CancelFlag* flag) override;
  ThreadPool& pool() { return pool_; }

 protected:
  Buffer doAllocate(size_t bytes) override;
  std::vector<Buffer> doPlace(std::span<const Placement> weights) override;
  void doBegin() override { ++submission_; }
  void doEnd(bool) override {}
  void doMatmul(ConstView x, std::span<const MatmulJob> jobs) override;
  void doGeglu(View out, ConstView x, const Linear& gate, const Linear& up) override;
  void doGelu(View gate, ConstView up) override;
  void doEmbed(View out, ConstView table, ConstView ids, float scale) override;
  void doRmsNorm(View out, ConstView x, ConstView weight, float eps, bool add) override;
  void doLayerNorm(View out, ConstView x, ConstView weight, ConstView bias, float eps) override;
  void doRope(View x, ConstView positions, int64_t headDim, float theta) override;
  void doStoreKv(const KvView& kv, int64_t layer, ConstView k, ConstView v, ConstView positions) override;
  void doAttention(std::span<const AttentionJob> jobs, const AttentionParams& params) override;
  void doDenseAttention(View out, ConstView q, ConstView k, ConstView v, int64_t heads, float scale,
                        Precision precision) override;
  void doAdd(View x, ConstView y) override;
  void doSoftcap(View x, float cap) override;
  void doArgmax(View ids, ConstView x) override;
  void doTopK(View ids, View values, ConstView x) override;
  void doMatmulGrad(View dx, ConstView dy, const Linear& linear, bool add) override;
  void doDropout(View out, ConstView x, const Dropout& dropout, bool add) override;
  void doAddOuter(View out, ConstView y, ConstView x, float scale) override;
  void doGegluGrad(View gate, View up, ConstView d) override;
  void doGeluGrad(View d, ConstView x) override;
  void doRmsNormGrad(View dx, ConstView dy, ConstView x, ConstView weight, float eps, bool add) override;
  void doLayerNormGrad(View dx, ConstView dy, ConstView x, ConstView weight, float eps, bool add) override;
  void doRopeGrad(View d, ConstView positions, int64_t headDim, float theta) override;
  void doAttentionGrad(const AttentionGrad& job) override;
  void doSoftmaxLoss(View losses, View logits, ConstView targets, float cap) override;
  void doCopy(View out, ConstView in) override;
  void doUpload(View out, const void* data) override;
  void doDownload(void* data, ConstView in) override;

 private:
  Gemm::Matrix matrix(const Linear& linear, int64_t rows);
  // Runs body(row) for all rows of `cols` values, in parallel.
  template <class Body>
  void forRows(int64_t rows, int64_t cols, const Body& body) {
    // about 16k values a chunk
    const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, cols));
    pool_.forRange(rows, grain, [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; ++r) body(r);
    });
  }

  const Kernels& kernels_;
  ThreadPool pool_;
  // Cosines and sines of one model's rotation, [position][half cosines, half sines]; grows with the positions seen.
  struct RopeTable {
    int64_t headDim = 0;
    float theta = 0;
    std::vector<float> angles;
  };
  static int64_t lastPosition(ConstHostView positions);
  const float* ropeAngles(int64_t positions, int64_t headDim, float theta);

  Gemm gemm_;
  std::vector<Gemm::Part> parts_;
  Attention attention_;
  std::vector<PagedJob> pagedJobs_;
  Products products_;
  AttentionBackward attentionBackward_;
  PackedWeights packed_;
  int64_t submission_ = 0;
  RopeTable rope_;
};

}  // namespace pg
