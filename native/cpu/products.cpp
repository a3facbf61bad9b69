#include "cpu/products.h"

#include <algorithm>
#include <cstring>

#include "base/math.h"

namespace pg {
namespace {

constexpr int64_t kColumns = 64;  // of out that one claim takes

}  // namespace

struct Products::Block {
  HostView out;
  const float* left;   // [tile][depth][tileTokens]
  int64_t depth;
  float scale;
  bool add;
};

// Whole blocks of a quantized type.
int64_t Products::chunkColumns(const Side& right) const {
  return std::max<int64_t>(kColumns, dtypeInfo(right.matrix.type)->block);
}

void Products::run(HostView out, Side left, Side right, float scale, bool add) {
  if (scale == 1 && takes8(left, right)) return run8(out, left, right, add);
  const int64_t width = kernels_.tileTokens, depth = left.depth(), chunk = chunkColumns(right);
  for (int64_t begin = 0; begin < out.rows; begin += kRows) {
    const int64_t rows = std::min(kRows, out.rows - begin), tiles = ceilDiv(rows, width);
    float* packed = left_.get<float>(size_t(tiles * width * depth));
    pool_.forRange(tiles, 1, [&](int64_t t, int64_t, int) {
      packLeft(left, begin + t * width, std::min(width, rows - t * width), packed + t * width * depth);
    });
    const Block block{out.slice(begin, rows), packed, depth, scale, add};
    pool_.forRange(ceilDiv(out.cols, chunk), 1, [&](int64_t c, int64_t, int worker) {
      if (cancel_ && cancel_->set.load(std::memory_order_relaxed)) return;
      columns(block, right, c * chunk, std::min(chunk, out.cols - c * chunk), workers_[size_t(worker)]);
    });
  }
}

void Products::runHere(HostView out, Side left, Side right, float scale, bool add, Worker& worker) const {
  const int64_t width = kernels_.tileTokens, depth = left.depth(), chunk = chunkColumns(right);
  for (int64_t begin = 0; begin < out.rows; begin += kRows) {
    const int64_t rows = std::min(kRows, out.rows - begin), tiles = ceilDiv(rows, width);
    float* packed = worker.left.get<float>(size_t(tiles * width * depth));
    for (int64_t t = 0; t < tiles; ++t)
      packLeft(left, begin + t * width, std::min(width, rows - t * width), packed + t * width * depth);
    const Block block{out.slice(begin, rows), packed, depth, scale, add};
    for (int64_t c = 0; c < out.cols; c += chunk) columns(block, right, c, std::min(chunk, out.cols - c), worker);
  }
}

// [depth][tileTokens]
void Products::packLeft(Side left, int64_t first, int64_t count, float* to) const {
  const int64_t width = kernels_.tileTokens;
  if (!left.transposed)
    return kernels_.packTokens(left.matrix.row<float>(first), int64_t(left.matrix.stride / sizeof(float)), count,
                               left.depth(), to);
  for (int64_t d = 0; d < left.depth(); ++d, to += width) {
    std::copy_n(left.matrix.row<float>(d) + first, count, to);
    std::fill(to + count, to + width, 0.0f);
  }
}

// worker.panels: [panel][n][tileRows], of depth [depth, depth + n)
void Products::packRight(Side right, int64_t first, int64_t count, int64_t depth, int64_t n, Worker& worker) const {
  const int64_t height = kernels_.tileRows, panels = ceilDiv(count, height);
  const ConstHostView& m = right.matrix;
  float* to = worker.panels.get<float>(size_t(panels * height * kDepth));
  if (!right.transposed) {
    for (int64_t p = 0; p < panels; ++p)
      kernels_.packRows(m.type, m.row<uint8_t>(first + p * height), m.stride, std::min(height, count - p * height),
                        depth, n, to + p * n * height);
    return;
  }
  float* wide = worker.row.get<float>(size_t(panels * height));
  std::fill(wide + count, wide + panels * height, 0.0f);
  for (int64_t d = 0; d < n; ++d) {
    kernels_.toF32(m.type, m.row<uint8_t>(depth + d) + bytesFor(m.type, first), wide, count);
    for (int64_t p = 0; p < panels; ++p)
      std::memcpy(to + (p * n + d) * height, wide + p * height, size_t(height) * sizeof(float));
  }
}

// Columns [first, first + count) of out
void Products::columns(const Block& block, Side right, int64_t first, int64_t count, Worker& worker) const {
  const int64_t height = kernels_.tileRows, width = kernels_.tileTokens, area = height * width;
  const int64_t panels = ceilDiv(count, height), tiles = ceilDiv(block.out.rows, width);
  float* acc = worker.acc.get<float>(size_t(panels * tiles * area));
  for (int64_t d = 0; d < block.depth; d += kDepth) {
    const int64_t n = std::min(kDepth, block.depth - d);
    packRight(right, first, count, d, n, worker);
    const float* panel = worker.panels.get<float>(0);
    for (int64_t p = 0; p < panels; ++p)
      for (int64_t t = 0; t < tiles; ++t)
        kernels_.tile(acc + (p * tiles + t) * area, height, panel + p * n * height,
                      block.left + (t * block.depth + d) * width, n, d > 0);
  }
  if (block.scale != 1) kernels_.scale(acc, block.scale, panels * tiles * area);
  finish(block.out, first, count, acc, block.add);
}

// acc [panel][token][tileRows] to columns [first, first + count) of out
void Products::finish(HostView out, int64_t first, int64_t count, const float* acc, bool add) const {
  const int64_t height = kernels_.tileRows, panel = roundUp(out.rows, kernels_.tileTokens) * height;
  for (int64_t c = 0; c < count; c += height, acc += panel)
    kernels_.finish(add ? Epilogue::add : Epilogue::store, out.row<float>(0) + first + c,
                    int64_t(out.stride / sizeof(float)), {acc, nullptr, height, nullptr, nullptr},
                    std::min(height, count - c), out.rows);
}

}  // namespace pg
