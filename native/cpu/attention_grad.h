#pragma once
// The backward pass of attention, a head at a time: scores are computed again in blocks of query rows, so that no
// matrix of all scores exists. Keys and values that heads share get each head's part in order.
#include <vector>

#include "cpu/products.h"
#include "device/attention_grad.h"

namespace pg {

// An AttentionGrad, resolved to the host's memory.
struct HostAttentionGrad {
  HostView dq, dk, dv;
  ConstHostView dout, q, k, v;
  int64_t heads, kvHeads;
  AttentionMask mask;
  float scale, softcap;

  int64_t headDim() const { return q.cols / heads; }
};

class AttentionBackward {
 public:
  AttentionBackward(const Kernels& kernels, ThreadPool& pool, const Products& products)
      : kernels_(kernels), pool_(pool), products_(products), workers_(size_t(pool.threads())) {}

  void setCancel(const CancelFlag* flag) { cancel_ = flag; }
  void run(const HostAttentionGrad& job);

 private:
  struct Worker {
    Products::Worker products;
    Scratch scores, probabilities, gradients;
  };
  struct Head;

  void head(const Head& head, Worker& worker) const;
  void rows(const Head& head, int64_t first, int64_t count, Worker& worker) const;

  const Kernels& kernels_;
  ThreadPool& pool_;
  const Products& products_;
  const CancelFlag* cancel_ = nullptr;
  std::vector<Worker> workers_;
  Scratch partial_;   // dk and dv of every head
};

}  // namespace pg
