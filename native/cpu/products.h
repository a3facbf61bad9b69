#pragma once
// out = left right^T * scale for f32 matrices in whatever order they lie: what a backward pass needs beside the
// forward's x W^T. Frozen quantized weights meet many rows in 8 bits, as they do there. Numbers do not depend on the
// number of threads, nor on which of the two ways in computes them.
#include <vector>

#include "base/cancel.h"
#include "base/host_view.h"
#include "base/thread_pool.h"
#include "cpu/kernels/common/kernels.h"
#include "cpu/scratch.h"

namespace pg {

class Products {
 public:
  // Rows of `depth` values each; transposed: depth runs down the rows of `matrix`, whose columns count. The right one
  // may then be of any type.
  struct Side {
    ConstHostView matrix;
    bool transposed = false;

    int64_t count() const { return transposed ? matrix.cols : matrix.rows; }
    int64_t depth() const { return transposed ? matrix.rows : matrix.cols; }
  };
  struct Worker {
    Scratch left, panels, row, acc;
    Scratch panel8, scales;  // of 8-bit products
  };

  Products(const Kernels& kernels, ThreadPool& pool)
      : kernels_(kernels), pool_(pool), workers_(size_t(pool.threads())) {}

  void setCancel(const CancelFlag* flag) { cancel_ = flag; }
  // out [left.count(), right.count()]; add: out += that
  void run(HostView out, Side left, Side right, float scale, bool add);
  // The same in the calling thread alone
  void runHere(HostView out, Side left, Side right, float scale, bool add, Worker& worker) const;

 private:
  static constexpr int64_t kLeast8 = 16;  // rows of left that are worth turning weights for
  static constexpr int64_t kRows = 528;  // of left that share one unpacking of right
  static constexpr int64_t kDepth = 256;  // of the panels: they stay in the second-level cache, with the sums
  static constexpr int64_t kGroups = kDepth / kTileGroup;  // of 8-bit panels
  struct Block8;
  struct Block;  // rows of left that are packed, on their way to rows of out

  int64_t chunkColumns(const Side& right) const;
  void packLeft(Side left, int64_t first, int64_t count, float* to) const;
  void packRight(Side right, int64_t first, int64_t count, int64_t depth, int64_t n, Worker& worker) const;
  void columns(const Block& block, Side right, int64_t first, int64_t count, Worker& worker) const;

  void finish(HostView out, int64_t first, int64_t count, const float* acc, bool add) const;

  bool takes8(const Side& left, const Side& right) const;
  void run8(HostView out, Side left, Side right, bool add);
  void packGroup8(Side right, int64_t first, int64_t count, int64_t depth, int64_t n, Worker& worker,
                  int64_t group) const;
  void columns8(const Block8& block, Side right, int64_t first, int64_t count, Worker& worker) const;

  const Kernels& kernels_;
  ThreadPool& pool_;
  const CancelFlag* cancel_ = nullptr;
  std::vector<Worker> workers_;
  Scratch left_, scales_, offsets_;
};

}  // namespace pg
