#pragma once
// out = x W^T for weights of any type: tiling, threads and epilogues; the arithmetic is in the kernel table.
//
// Up to kMaxDecodeTokens rows of x (decoding) take the weights row by row as they lie in the file. More rows take
// tiles: x is packed once, each panel of weight rows is unpacked once per block of rows and multiplied with all of
// them. Quantized weights meet activations of 8 bits (a scale per 32 or 64 columns) where the table has kernels for
// it; f32, f16 and bf16 weights always meet f32. A row's result does not depend on the other rows of its kind of call,
// nor on the number of threads.
#include <span>
#include <vector>

#include "base/thread_pool.h"
#include "cpu/kernels/common/kernels.h"
#include "cpu/scratch.h"
#include "device/device.h"

namespace pg {

class Gemm {
 public:
  Gemm(const Kernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool), workers_(size_t(pool.threads())) {}

  void setCancel(const CancelFlag* flag) { cancel_ = flag; }
  // Shapes are checked by the caller. k may be any size that the weight's block allows.
  void matmul(ConstView x, std::span<const MatmulJob> jobs);
  void geglu(View out, ConstView x, const Linear& gate, const Linear& up);
  // See Device. Panels lie as tiles read them: those of tileRows rows one behind the other, their scales behind them
  // all.
  size_t packedBytes(const Linear& linear) const;
  void pack(const Linear& linear, uint8_t* to);

 private:
  // One output: weight rows, or gate rows (weight) and up rows (second) of the same numbers.
  struct Part {
    View out;
    ConstView weight, second;
    const uint8_t *packed, *secondPacked;
    const float *bias, *secondBias;
    Epilogue kind;
    int64_t chunkRows, firstChunk;
  };
  // x as the tiles read it
  struct Packed {
    const float* tokens32 = nullptr;
    const uint8_t* tokens8 = nullptr;
    const float* scales = nullptr;
    const int32_t* offsets = nullptr;
    int64_t tiles = 0;
  };
  struct Worker {
    Scratch panel, scales, acc, second, rows;
  };

  static Part part(View out, const Linear& linear, Epilogue kind) {
    return {out, linear.weight, {}, linear.packed, nullptr, linear.bias, nullptr, kind, 0, 0};
  }
  void run(ConstView x, std::span<Part> parts);
  // Runs body(part, firstRow, rows, worker) over the rows of all parts in one parallel loop.
  template <class Body>
  void forChunks(std::span<Part> parts, const Body& body);

  bool tiles8(DType type) const;    // quantized weights as 8-bit panels
  bool decodes8(DType type) const;  // the table has a decode kernel for the type

  void decode(ConstView x, std::span<Part> parts);
  void decodeRows(ConstView w, int64_t first, int64_t rows, ConstView x, const uint8_t* tokens, float* out,
                  Scratch& wide) const;

  void tile(ConstView x, std::span<Part> parts);
  Packed pack(ConstView x, bool need32, bool need8);
  // acc[panel][tile][token][row] of rows [first, first + rows)
  void tileRows(ConstView w, const uint8_t* packed, int64_t first, int64_t rows, const Packed& x, Worker& worker,
                float* acc) const;
  // Sums of weight rows [first, first + n) on their way to columns of out
  void finish(const Part& part, View out, int64_t first, int64_t n, Sums sums, int64_t tokens) const;

  bool cancelled() const { return cancel_ && cancel_->set.load(std::memory_order_relaxed); }

  const Kernels& kernels_;
  ThreadPool& pool_;
  const CancelFlag* cancel_ = nullptr;
  std::vector<Worker> workers_;
  std::vector<Part> parts_;
  Scratch tokens_, tokens8_, scales_, offsets_;
};

}  // namespace pg
