#pragma once
// out = x W^T for weights of any type: tiling, threads and epilogues; the arithmetic is in the kernel table.
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "cpu/kernels.h"
#include "device/device.h"

namespace pg {

class Gemm {
 public:
  Gemm(const Kernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool), scratch_(size_t(pool.threads())) {}

  void setCancel(const CancelFlag* flag) { cancel_ = flag; }
  // Shapes are checked by the caller. k may be any size that the weight's block allows.
  void matmul(ConstView x, std::span<const MatmulJob> jobs);
  void geglu(View out, ConstView x, const Linear& gate, const Linear& up);

 private:
  // Rows [begin, begin + count) of w as f32, k values each: in place for f32, else unpacked into `to`.
  const float* panel(ConstView w, int64_t begin, int64_t count, std::vector<float>& to) const;
  bool cancelled() const { return cancel_ && cancel_->set.load(std::memory_order_relaxed); }

  struct Scratch {
    std::vector<float> a, b;   // unpacked weight panels
  };

  const Kernels& kernels_;
  ThreadPool& pool_;
  const CancelFlag* cancel_ = nullptr;
  std::vector<Scratch> scratch_;   // one per worker
};

}  // namespace pg
