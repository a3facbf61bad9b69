#pragma once
// out = x W^T for weights of any type: tiling, threads and epilogues; the arithmetic is in the kernel table.
//
// Up to kMaxDecodeTokens rows of x (decoding) take the weights row by row as they lie in the file. More rows take
// tiles: x is packed once, each panel of weight rows is unpacked once per block of rows and multiplied with all of
// them. Quantized weights meet activations of 8 bits (a scale per 32 or 64 columns) where the table has kernels for
// it, as the file's own levels of few bits or as panels of 8 bits; f32, f16 and bf16 weights always meet f32. A row's
// result does not depend on the other rows of its kind of call, nor on the number of threads.
#include <span>
#include <vector>

#include "base/cancel.h"
#include "base/host_view.h"
#include "base/math.h"
#include "base/thread_pool.h"
#include "cpu/kernels/common/kernels.h"
#include "cpu/scratch.h"

namespace pg {

class Gemm {
 public:
  // A weight [n, k] and, where there are, its packed form and its bias.
  struct Matrix {
    ConstHostView weight;
    const uint8_t* packed = nullptr;
    const float* bias = nullptr;
  };
  // One output: products with `weight` and, for geglu, with `second`, which has the same number of rows.
  struct Part {
    HostView out;   // [m, n] f32
    Matrix weight, second;
    Epilogue epilogue;
    int64_t chunkRows = 0, firstChunk = 0;   // run()'s own
  };

  Gemm(const Kernels& kernels, ThreadPool& pool) : kernels_(kernels), pool_(pool), workers_(size_t(pool.threads())) {}

  void setCancel(const CancelFlag* flag) { cancel_ = flag; }
  // All parts from the same x [m, k] f32. Shapes are checked by the caller; k may be any size that the weight's block
  // allows.
  void run(ConstHostView x, std::span<Part> parts);
  // Fails with modelInvalid where a value is NaN or infinite: integers that it is rounded to would hide it.
  void checkFinite(ConstHostView x) const;
  // Whether so many rows of x take tiles, which packed weights are for.
  bool tiles(int64_t rows) const { return rows > kMaxDecodeTokens; }
  // Weights in the form that tiles read, about as large as they are: 0 bytes where nothing is gained. Panels lie as
  // tiles read them: those of tileRows rows one behind the other, their scales behind them all.
  size_t packedBytes(ConstHostView weight) const;
  void pack(ConstHostView weight, uint8_t* to);

 private:
  // x as the tiles read it: parts of its columns one behind the other, in each the tiles. So what a panel meets lies
  // together.
  struct Packed {
    const float* tokens32 = nullptr;
    const uint8_t* tokens8 = nullptr;
    const float* scales = nullptr;
    const int32_t* offsets = nullptr;
    const uint8_t* levels = nullptr;  // that weights of few bits meet
    int64_t tiles = 0;

    // Where columns [c, c + n) of tile t begin, counted in `unit` columns of a tile.
    int64_t at(int64_t t, int64_t c, int64_t n, int64_t unit) const { return c / unit * tiles + t * ceilDiv(n, unit); }
  };
  struct Worker {
    Scratch panel, scales, acc, second, rows;
  };

  // Runs body(part, firstRow, rows, worker) over the rows of all parts in one parallel loop.
  template <class Body>
  void forChunks(std::span<Part> parts, const Body& body);

  enum class Form { f32, eight, levels };  // of a panel
  Form form(DType type) const;
  bool tiles8(DType type) const { return form(type) == Form::eight; }
  bool decodes8(DType type) const;  // the table has a decode kernel for the type

  void decode(ConstHostView x, std::span<Part> parts);
  void decodeRows(ConstHostView w, int64_t first, int64_t rows, ConstHostView x, const uint8_t* tokens, float* out,
                  Scratch& wide) const;

  void tile(ConstHostView x, std::span<Part> parts);
  struct Forms {
    bool f32, eight, levels;
  };
  Packed packTokens(ConstHostView x, Forms forms);
  // acc[panel][tile][token][row] of rows [first, first + rows)
  void tileRows(const Matrix& matrix, int64_t first, int64_t rows, const Packed& x, Worker& worker, float* acc) const;
  void tileRows32(ConstHostView w, int64_t first, int64_t rows, const Packed& x, Worker& worker, float* acc) const;
  void tileRows8(const Matrix& matrix, int64_t first, int64_t rows, const Packed& x, Worker& worker, float* acc) const;
  void tileLevels(ConstHostView w, int64_t first, int64_t rows, const Packed& x, Worker& worker, float* acc) const;
  struct Panel8;
  class Ahead;
  Panel8 panel8(const Matrix& matrix, int64_t first, int64_t rows, int64_t column, int64_t panel, Worker& worker) const;
  struct Columns;
  Columns columns(ConstHostView w, int64_t first, int64_t rows, int64_t column, int64_t n, Worker& worker) const;
  // Sums of weight rows [first, first + n) on their way to columns of out
  void finish(const Part& part, HostView out, int64_t first, int64_t n, Sums sums, int64_t tokens) const;

  bool cancelled() const { return cancel_ && cancel_->set.load(std::memory_order_relaxed); }

  const Kernels& kernels_;
  ThreadPool& pool_;
  const CancelFlag* cancel_ = nullptr;
  std::vector<Worker> workers_;
  Scratch tokens_, tokens8_, scales_, offsets_, levels_;
};

}  // namespace pg
