// Products with frozen quantized weights: as the forward's, in 8 bits with a scale per 64 values of the depth, which
// run down the columns of the file's rows here.
#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/math.h"
#include "cpu/prefetch.h"
#include "cpu/products.h"

namespace pg {
namespace {

constexpr int64_t kAhead = 16;  // rows of right

// Columns of out that one claim takes where all threads get some: of each row of right they use the whole of the cache
// lines that they read.
constexpr int64_t kWide = 128;

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
  const int64_t least = chunkColumns(right), wide = std::max(least, kWide);
  const int64_t chunk = ceilDiv(out.cols, wide) >= 4 * pool_.threads() ? wide : least;
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

// Columns [first, first + count) of the rows [depth, depth + n), n <= kTileGroup, as the group `group` of panels
void Products::packGroup8(Side right, int64_t first, int64_t count, int64_t depth, int64_t n, Worker& worker,
                          int64_t group) const {
  const int64_t height = kernels_.tileRows, panels = ceilDiv(count, height), cols = panels * height;
  const ConstHostView& m = right.matrix;
  float* wide = worker.row.get<float>(size_t(kTileGroup * cols));
  const size_t offset = bytesFor(m.type, first);
  for (int64_t r = 0; r < n; ++r) {
    // few bytes of many rows: each would be waited for
    if (depth + r + kAhead < m.rows)
      prefetch(m.row<uint8_t>(depth + r + kAhead) + offset, int64_t(bytesFor(m.type, count)));
    kernels_.toF32(m.type, m.row<uint8_t>(depth + r) + offset, wide + r * cols, count);
    std::fill(wide + r * cols + count, wide + (r + 1) * cols, 0.0f);
  }
  uint8_t* panel = worker.panel8.get<uint8_t>(0);
  float* scales = worker.scales.get<float>(0);
  for (int64_t p = 0; p < panels; ++p) {
    const int64_t at = p * kGroups + group;
    kernels_.packColumns8(wide + p * height, cols, n, panel + at * height * kTileGroup * kernels_.panelBytes,
                          scales + at * height);
  }
}

// Columns [first, first + count) of out
void Products::columns8(const Block8& block, Side right, int64_t first, int64_t count, Worker& worker) const {
  const int64_t height = kernels_.tileRows, width = kernels_.tileTokens, area = height * width;
  const int64_t panels = ceilDiv(count, height), tiles = ceilDiv(block.out.rows, width), depth = right.depth();
  const int64_t panelBytes = height * kDepth * kernels_.panelBytes;
  const uint8_t* packed = worker.panel8.get<uint8_t>(size_t(panels * panelBytes));
  const float* scales = worker.scales.get<float>(size_t(panels * kGroups * height));
  float* acc = worker.acc.get<float>(size_t(panels * tiles * area));
  std::fill_n(acc, panels * tiles * area, 0.0f);
  for (int64_t d = 0; d < depth; d += kDepth) {
    const int64_t n = std::min(kDepth, depth - d);
    for (int64_t g = 0; g * kTileGroup < n; ++g)
      packGroup8(right, first, count, d + g * kTileGroup, std::min(kTileGroup, n - g * kTileGroup), worker, g);
    for (int64_t p = 0; p < panels; ++p) {
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t group = t * block.groups + d / kTileGroup;
        kernels_.tile8(acc + (p * tiles + t) * area, packed + p * panelBytes, scales + p * kGroups * height,
                       block.left + group * kTileGroup * width * kernels_.tokenBytes, block.scales + group * width,
                       block.offsets + group * width, ceilDiv(n, kTileGroup));
      }
    }
  }
  finish(block.out, first, count, acc, block.add);
}

}  // namespace pg
