// Products with frozen quantized weights: as the forward's, in 8 bits with a scale per 64 values of the depth, which
// are turned to lie along the other side of the matrix.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "base/math.h"
#include "cpu/prefetch.h"
#include "cpu/products.h"

namespace pg {
namespace {

constexpr int64_t kRows = 528;   // of left that share one unpacking of right
constexpr int64_t kDepth = 768;  // of the panels

}  // namespace

// Rows of left in 8 bits, on their way to rows of out.
struct Products::Block8 {
  HostView out;
  const uint8_t* left;
  const float* scales;
  const int32_t* offsets;
  int64_t groups;
  bool add;
};

bool Products::takes8(const Side& left, const Side& right) const {
  return kernels_.packRows8 && right.transposed && !left.transposed && dtypeInfo(right.matrix.type)->quantized &&
         left.count() >= kLeast8;
}

void Products::run8(HostView out, Side left, Side right, bool add) {
  const int64_t width = kernels_.tileTokens, depth = left.depth(), groups = ceilDiv(depth, kTileGroup);
  const int64_t chunk = chunkColumns(right);
  for (int64_t begin = 0; begin < out.rows; begin += kRows) {
    const int64_t rows = std::min(kRows, out.rows - begin), tiles = ceilDiv(rows, width);
    const size_t tileBytes = size_t(width * groups * kTileGroup * kernels_.tokenBytes);
    uint8_t* packed = left_.get<uint8_t>(size_t(tiles) * tileBytes);
    float* scales = scales_.get<float>(size_t(tiles * width * groups));
    int32_t* offsets = offsets_.get<int32_t>(size_t(tiles * width * groups));
    pool_.forRange(tiles, 1, [&](int64_t t, int64_t, int) {
      const ConstHostView tile = left.matrix.slice(begin + t * width, std::min(width, rows - t * width));
      for (int64_t r = 0; r < tile.rows; ++r)  // rounding to 8 bits would hide a NaN
        if (!std::isfinite(kernels_.dot(tile.row<float>(r), tile.row<float>(r), depth)))
          fail(Code::modelInvalid, "Gradients are not finite. Lower learningRate, or set clip");
      kernels_.packTokens8(tile.row<float>(0), int64_t(tile.stride / sizeof(float)), tile.rows, depth,
                           packed + size_t(t) * tileBytes, scales + t * width * groups, offsets + t * width * groups);
    });
    const Block8 block{out.slice(begin, rows), packed, scales, offsets, groups, add};
    pool_.forRange(ceilDiv(out.cols, chunk), 1, [&](int64_t c, int64_t, int worker) {
      if (cancel_ && cancel_->set.load(std::memory_order_relaxed)) return;
      columns8(block, right, c * chunk, std::min(chunk, out.cols - c * chunk), workers_[size_t(worker)]);
    });
  }
}

// worker.turned: columns [first, first + count) of the rows [depth, depth + n), as rows kDepth apart
void Products::turn(Side right, int64_t first, int64_t count, int64_t depth, int64_t n, Worker& worker) const {
  const int64_t height = kernels_.tileRows;
  const ConstHostView& m = right.matrix;
  float* turned = worker.turned.get<float>(size_t(count * kDepth));
  float* wide = worker.row.get<float>(size_t(height * count));
  float* panel = worker.panels.get<float>(size_t(height * count));
  const size_t offset = bytesFor(m.type, first);
  for (int64_t d = 0; d < n; d += height) {
    const int64_t rows = std::min(height, n - d);
    // few bytes of many rows: each would be waited for
    for (int64_t r = 0; r < std::min(height, n - d - rows); ++r)
      prefetch(m.row<uint8_t>(depth + d + rows + r) + offset, int64_t(bytesFor(m.type, count)));
    for (int64_t r = 0; r < rows; ++r)
      kernels_.toF32(m.type, m.row<uint8_t>(depth + d + r) + offset, wide + r * count, count);
    kernels_.packRows(DType::f32, reinterpret_cast<const uint8_t*>(wide), size_t(count) * sizeof(float), rows, 0, count,
                      panel);
    for (int64_t c = 0; c < count; ++c)
      std::memcpy(turned + c * kDepth + d, panel + c * height, size_t(rows) * sizeof(float));
  }
}

// Columns [first, first + count) of out
void Products::columns8(const Block8& block, Side right, int64_t first, int64_t count, Worker& worker) const {
  const int64_t height = kernels_.tileRows, width = kernels_.tileTokens, area = height * width;
  const int64_t panels = ceilDiv(count, height), tiles = ceilDiv(block.out.rows, width), depth = right.depth();
  float* acc = worker.acc.get<float>(size_t(panels * tiles * area));
  std::fill_n(acc, panels * tiles * area, 0.0f);
  for (int64_t d = 0; d < depth; d += kDepth) {
    const int64_t n = std::min(kDepth, depth - d);
    turn(right, first, count, d, n, worker);
    const float* turned = worker.turned.get<float>(0);
    uint8_t* panel = worker.panel8.get<uint8_t>(size_t(height * kDepth * kernels_.panelBytes));
    float* scales = worker.scales.get<float>(size_t(height * kDepth / kTileGroup));
    for (int64_t p = 0; p < panels; ++p) {
      kernels_.packRows8(DType::f32, reinterpret_cast<const uint8_t*>(turned + p * height * kDepth),
                         kDepth * sizeof(float), std::min(height, count - p * height), 0, n, panel, scales);
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t group = t * block.groups + d / kTileGroup;
        kernels_.tile8(acc + (p * tiles + t) * area, panel, scales,
                       block.left + group * kTileGroup * width * kernels_.tokenBytes, block.scales + group * width,
                       block.offsets + group * width, ceilDiv(n, kTileGroup));
      }
    }
  }
  finish(block.out, first, count, acc, block.add);
}

}  // namespace pg
