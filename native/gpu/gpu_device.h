#pragma once
// Every op of Device on a GPU: which kernels, with what arguments, over which grid. What the GPU is, the Driver knows.
//
// Ops only start kernels; upload() and download() are where the host meets the device. What kernels found wrong with
// the numbers (values that a cache cannot hold) is told then, too.
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "device/device.h"
#include "gpu/driver.h"
#include "gpu/gpu_args.h"

namespace pg::gpu {

class GpuDevice final : public Device {
 public:
  explicit GpuDevice(std::unique_ptr<Driver> driver);
  ~GpuDevice() override;

  const char* name() const override { return driver_->info().kind.c_str(); }
  std::string isa() const override { return driver_->info().name; }
  DeviceLimits limits() const override;
  void setCancel(const CancelFlag* flag) override { cancel_ = flag; }
  Driver& driver() { return *driver_; }

 protected:
  Buffer doAllocate(size_t bytes) override;
  std::vector<Buffer> doPlace(std::span<const Placement> weights) override;
  void doBegin() override;
  void doEnd(bool complete) override;
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
  struct Retired;
  struct Held;

  // What kernels leave behind for one another within an op.
  enum class Scratch { product, wide, halves, scales, first, second, flags, count };
  View scratch(Scratch use, int64_t rows, int64_t cols, DType type = DType::f32);

  template <class Args>
  void launch(const char* kernel, Size3 groups, uint32_t threads, const Args& args,
              std::initializer_list<Binding> buffers, uint32_t groupMemory = 0) {
    run(kernel, groups, threads, {reinterpret_cast<const uint8_t*>(&args), sizeof args}, buffers, groupMemory);
  }
  void run(const char* kernel, Size3 groups, uint32_t threads, std::span<const uint8_t> args,
           std::initializer_list<Binding> buffers, uint32_t groupMemory);
  // A thread a value of rows x cols.
  template <class Args>
  void launchValues(const char* kernel, int64_t rows, int64_t cols, const Args& args,
                    std::initializer_list<Binding> buffers);

  template <class List>
  void mapWeights(List& list, std::vector<Buffer>& memory);
  void rotate(View x, ConstView positions, int64_t headDim, float theta, float sign);
  ConstView frequencies(int64_t headDim, float theta);
  // Calls use(rows in f32, the first one's number) for all rows of a weight, some at a time where they must be widened.
  void eachWideRows(ConstView weight, const std::function<void(ConstView, int64_t)>& use);
  void widen(View out, ConstView table, ConstView ids, float scale);
  // Rows of x in 16-bit numbers: [row][part][padded], and what each row's sums are multiplied with.
  struct Halves {
    View rows, factors;
    uint32_t padded = 0, parts = 0;
    bool brain = false;
  };
  Halves round(ConstView x, DType weights);
  bool usesMatrixUnits(ConstView weight) const;
  void matrixProduct(View y, ConstView x, const Linear& linear, Epilogue epilogue, Halves& halves);
  void product(View y, ConstView x, const Linear& linear, Epilogue epilogue);
  using Sequences = std::span<const AttentionJob* const>;
  AttentionArgs attentionArgs(Sequences jobs, const AttentionParams& params) const;
  void attendSingle(Sequences jobs, const AttentionParams& params);
  void attendMany(Sequences jobs, const AttentionParams& params);
  void copyRows(View out, ConstView in);
  void checkNumbers();

  std::unique_ptr<Driver> driver_;
  std::shared_ptr<Retired> retired_;
  std::array<Buffer, size_t(Scratch::count)> scratch_;
  std::map<std::pair<int64_t, float>, Buffer> frequencies_;
  Buffer trouble_;  // one number that kernels leave when values are wrong
  bool mayHaveTrouble_ = false;
  float storeLimit_ = 0;  // of the cache type that was last stored to
  bool gathering_ = false;
  const CancelFlag* cancel_ = nullptr;
};

}  // namespace pg::gpu
