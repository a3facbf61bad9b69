#include "cpu/gemm.h"

#include <algorithm>
#include <atomic>

#include "base/error.h"
#include "base/finite.h"
#include "base/math.h"
#include "cpu/prefetch.h"
#include "device/refusals.h"
#include "format/blocks.h"

namespace pg {
void Gemm::run(ConstHostView x, std::span<Part> parts) {
  if (x.rows == 0) return;
  if (tiles(x.rows)) tile(x, parts);
  else decode(x, parts);
}

void Gemm::checkFinite(ConstHostView x) const {
  for (int64_t r = 0; r < x.rows && !cancelled(); ++r)
    if (!allFinite({x.row<float>(r), size_t(x.cols)})) refuseSpoiled();
}

Gemm::Form Gemm::form(DType type) const {
  if (!kernels_.packRows8 || !dtypeInfo(type)->quantized) return Form::f32;
  return kernels_.hasLevels && kernels_.hasLevels(type) ? Form::levels : Form::eight;
}

bool Gemm::decodes8(DType type) const { return kernels_.hasDot8 && kernels_.hasDot8(type); }

template <class Body>
void Gemm::forChunks(std::span<Part> parts, const Body& body) {
  int64_t chunks = 0;
  for (Part& p : parts) {
    p.firstChunk = chunks;
    chunks += ceilDiv(p.weight.weight.rows, p.chunkRows);
  }
  pool_.forRange(chunks, 1, [&](int64_t chunk, int64_t, int worker) {
    if (cancelled()) return;
    size_t i = parts.size() - 1;
    while (parts[i].firstChunk > chunk) --i;
    const int64_t first = (chunk - parts[i].firstChunk) * parts[i].chunkRows;
    body(parts[i], first, std::min(parts[i].chunkRows, parts[i].weight.weight.rows - first), workers_[size_t(worker)]);
  });
}

// ---- decoding ----

void Gemm::decode(ConstHostView x, std::span<Part> parts) {
  uint8_t* tokens = nullptr;
  bool any8 = false;
  for (Part& p : parts) {
    any8 = any8 || decodes8(p.weight.weight.type) || (p.second.weight && decodes8(p.second.weight.type));
    // a long contiguous run of bytes for each claim, yet several claims for each thread
    const int64_t rowBytes = int64_t(std::max<size_t>(1, p.weight.weight.stride)),
                  total = p.weight.weight.rows * rowBytes;
    const int64_t bytes = std::clamp<int64_t>(total / 64, 32 << 10, 256 << 10);
    p.chunkRows = std::max<int64_t>(4, bytes / rowBytes);
  }
  if (any8) {
    const int64_t blocks = ceilDiv(x.cols, kRowBlock);
    tokens = tokens8_.get<uint8_t>(size_t(x.rows * blocks * kernels_.tokenBlockBytes));
    checkFinite(x);
    kernels_.quantizeTokens(x.row<float>(0), int64_t(x.stride / sizeof(float)), x.rows, x.cols, tokens);
  }
  forChunks(parts, [&](const Part& p, int64_t first, int64_t rows, Worker& worker) {
    float* y = worker.acc.get<float>(size_t(x.rows * rows));
    decodeRows(p.weight.weight, first, rows, x, tokens, y, worker.rows);
    float* second = nullptr;
    if (p.second.weight)
      decodeRows(p.second.weight, first, rows, x, tokens, second = worker.second.get<float>(size_t(x.rows * rows)),
                 worker.rows);
    finish(p, p.out, first, rows, {y, second, rows}, x.rows);
  });
}

void Gemm::decodeRows(ConstHostView w, int64_t first, int64_t rows, ConstHostView x, const uint8_t* tokens, float* out,
                      Scratch& wide) const {
  const uint8_t* data = w.row<uint8_t>(first);
  const float* values = x.row<float>(0);
  const int64_t stride = int64_t(x.stride / sizeof(float));
  if (decodes8(w.type)) return kernels_.dotRows8(w.type, data, w.stride, rows, w.cols, tokens, x.rows, out);
  if (!dtypeInfo(w.type)->quantized)
    return kernels_.dotRows(w.type, data, w.stride, rows, w.cols, values, stride, x.rows, out);
  // a type without a kernel of its own: row by row through f32
  float y[kMaxDecodeTokens], *row = wide.get<float>(size_t(w.cols));
  for (int64_t r = 0; r < rows; ++r) {
    kernels_.toF32(w.type, data + w.stride * size_t(r), row, w.cols);
    kernels_.dotRows(DType::f32, reinterpret_cast<const uint8_t*>(row), 0, 1, w.cols, values, stride, x.rows, y);
    for (int64_t m = 0; m < x.rows; ++m) out[m * rows + r] = y[m];
  }
}

// ---- many rows ----

namespace {

constexpr int64_t kBlockTokens = 576;  // rows of x that share one unpacking (48 or 96 tiles); DeviceLimits::jointRows
constexpr int64_t kChunkRows = 64;  // weight rows of one claim
constexpr int64_t kDepth8 = 512;  // columns of an 8-bit panel: so many of kBlockTokens fit a second-level cache
constexpr int64_t kDepth32 = 256;  // columns of an f32 panel

}  // namespace

size_t Gemm::packedBytes(ConstHostView w) const {
  if (!tiles8(w.type) || !kernels_.hasTile8(w.type)) return 0;
  const int64_t groups = ceilDiv(w.cols, kTileGroup);
  const size_t bytes =
      size_t(roundUp(w.rows, kernels_.tileRows) * groups) * (kTileGroup * size_t(kernels_.panelBytes) + sizeof(float));
  // not where panels are much larger than the file's rows; Q8_0 takes the same but for padding
  const size_t before = w.bytes();
  return bytes <= before + before / 4 ? bytes : 0;
}

void Gemm::pack(ConstHostView w, uint8_t* to) {
  const int64_t height = kernels_.tileRows, groups = ceilDiv(w.cols, kTileGroup), panels = ceilDiv(w.rows, height);
  float* scales = reinterpret_cast<float*>(to + panels * height * groups * kTileGroup);
  pool_.forRange(panels, 1, [&](int64_t p, int64_t, int) {
    kernels_.packRows8(w.type, w.row<uint8_t>(p * height), w.stride, std::min(height, w.rows - p * height), 0, w.cols,
                       to + p * height * groups * kTileGroup, scales + p * height * groups);
  });
}

void Gemm::tile(ConstHostView x, std::span<Part> parts) {
  Forms forms{};
  for (Part& p : parts) {
    p.chunkRows = kChunkRows;
    for (const ConstHostView& w : {p.weight.weight, p.second.weight}) {
      if (!w) continue;
      const Form f = form(w.type);
      (f == Form::levels ? forms.levels : f == Form::eight ? forms.eight : forms.f32) = true;
    }
  }
  for (int64_t begin = 0; begin < x.rows; begin += kBlockTokens) {
    const int64_t count = std::min(kBlockTokens, x.rows - begin);
    const Packed packed = packTokens(x.slice(begin, count), forms);
    forChunks(parts, [&](const Part& p, int64_t first, int64_t rows, Worker& worker) {
      const size_t size = size_t(roundUp(rows, kernels_.tileRows) * packed.tiles * kernels_.tileTokens);
      float *acc = worker.acc.get<float>(size), *second = nullptr;
      tileRows(p.weight, first, rows, packed, worker, acc);
      if (p.second.weight) tileRows(p.second, first, rows, packed, worker, second = worker.second.get<float>(size));
      // of each panel, its tokens' rows lie one behind the other
      const int64_t height = kernels_.tileRows, panel = packed.tiles * height * kernels_.tileTokens;
      for (int64_t r = 0; r < rows; r += height, acc += panel, second = second ? second + panel : nullptr)
        finish(p, p.out.slice(begin, count), first + r, std::min(height, rows - r), {acc, second, height}, count);
    });
  }
}

Gemm::Packed Gemm::packTokens(ConstHostView x, Forms forms) {
  const int64_t width = kernels_.tileTokens, tiles = ceilDiv(x.rows, width), k = x.cols;
  const int64_t groups = ceilDiv(k, kTileGroup), padded = groups * kTileGroup;
  const int64_t levelBytes = width * kernels_.tokenBlockBytes;  // of kRowBlock columns
  float* tokens32 = forms.f32 ? tokens_.get<float>(size_t(tiles * width * k)) : nullptr;
  uint8_t* tokens8 =
      forms.eight ? tokens8_.get<uint8_t>(size_t(tiles * width * padded * kernels_.tokenBytes)) : nullptr;
  float* scales = forms.eight ? scales_.get<float>(size_t(tiles * width * groups)) : nullptr;
  int32_t* offsets = forms.eight ? offsets_.get<int32_t>(size_t(tiles * width * groups)) : nullptr;
  uint8_t* levels = forms.levels ? levels_.get<uint8_t>(size_t(tiles * ceilDiv(k, kRowBlock) * levelBytes)) : nullptr;
  const Packed packed{tokens32, tokens8, scales, offsets, levels, tiles};
  std::atomic<bool> spoiled{false};
  pool_.forRange(tiles, 1, [&](int64_t t, int64_t, int) {
    const float* rows = x.row<float>(t * width);
    const int64_t count = std::min(width, x.rows - t * width), stride = int64_t(x.stride / sizeof(float));
    for (int64_t r = 0; (forms.eight || forms.levels) && r < count; ++r)
      if (!allFinite({rows + r * stride, size_t(k)})) spoiled.store(true, std::memory_order_relaxed);
    for (int64_t c = 0; forms.f32 && c < k; c += kDepth32) {
      const int64_t n = std::min(kDepth32, k - c);
      kernels_.packTokens(rows + c, stride, count, n, tokens32 + packed.at(t, c, n, 1) * width);
    }
    for (int64_t c = 0; (forms.eight || forms.levels) && c < k; c += kDepth8) {
      const int64_t n = std::min(kDepth8, k - c), group = packed.at(t, c, n, kTileGroup) * width;
      if (forms.eight)
        kernels_.packTokens8(rows + c, stride, count, n, tokens8 + group * kTileGroup * kernels_.tokenBytes,
                             scales + group, offsets + group);
      if (forms.levels)
        kernels_.packTokenLevels(rows + c, stride, count, n, levels + packed.at(t, c, n, kRowBlock) * levelBytes);
    }
  });
  if (spoiled.load(std::memory_order_relaxed) && !cancelled()) refuseSpoiled();
  return packed;
}

// Where columns of weight rows begin, in a form that the packing kernels read.
struct Gemm::Columns {
  DType type;
  const uint8_t* data;
  size_t stride;
  int64_t column;
};

// `n` columns of `rows` <= tileRows rows: as they lie where the kernels read their type, else through f32.
Gemm::Columns Gemm::columns(ConstHostView w, int64_t first, int64_t rows, int64_t column, int64_t n,
                            Worker& worker) const {
  const bool quantized = dtypeInfo(w.type)->quantized;
  const uint8_t* source = w.row<uint8_t>(first);
  if (tiles8(w.type) ? kernels_.hasTile8(w.type) : !quantized) return {w.type, source, w.stride, column};
  const int64_t depth = tiles8(w.type) ? kDepth8 : kDepth32;
  float* wide = worker.rows.get<float>(size_t(kernels_.tileRows * depth));
  for (int64_t r = 0; r < rows; ++r)
    kernels_.toF32(w.type, source + w.stride * size_t(r) + bytesFor(w.type, column), wide + r * depth, n);
  return {DType::f32, reinterpret_cast<const uint8_t*>(wide), size_t(depth) * sizeof(float), 0};
}

// An 8-bit panel, and where the next one lies if it is packed already.
struct Gemm::Panel8 {
  const uint8_t *data, *next;
  const float* scales;
};

// Columns [column, column + kDepth8) of panel `panel` of rows [first, first + rows).
Gemm::Panel8 Gemm::panel8(const Matrix& matrix, int64_t first, int64_t rows, int64_t column, int64_t panel,
                          Worker& worker) const {
  const ConstHostView w = matrix.weight;
  const int64_t height = kernels_.tileRows, groups = ceilDiv(w.cols, kTileGroup), row = first + panel * height;
  if (matrix.packed) {
    const int64_t before = row * groups, all = roundUp(w.rows, height) * groups;  // in groups
    const uint8_t* data = matrix.packed + before * kTileGroup + height * column;
    const uint8_t* next = (panel + 1) * height < rows
                              ? data + height * groups * kTileGroup
                              : matrix.packed + first * groups * kTileGroup + height * (column + kDepth8);
    return {data, next,
            reinterpret_cast<const float*>(matrix.packed + all * kTileGroup) + before + height * column / kTileGroup};
  }
  const int64_t n = std::min(kDepth8, w.cols - column), count = std::min(height, rows - panel * height);
  const Columns from = columns(w, row, count, column, n, worker);
  uint8_t* to = worker.panel.get<uint8_t>(size_t(height * kDepth8 * kernels_.panelBytes));
  float* scales = worker.scales.get<float>(size_t(height * kDepth8 / kTileGroup));
  kernels_.packRows8(from.type, from.data, from.stride, count, from.column, n, to, scales);
  return {to, nullptr, scales};
}

void Gemm::tileRows(const Matrix& matrix, int64_t first, int64_t rows, const Packed& x, Worker& worker,
                    float* acc) const {
  switch (form(matrix.weight.type)) {
    case Form::f32: return tileRows32(matrix.weight, first, rows, x, worker, acc);
    case Form::eight: return tileRows8(matrix, first, rows, x, worker, acc);
    case Form::levels: return tileLevels(matrix.weight, first, rows, x, worker, acc);
  }
}

void Gemm::tileRows32(ConstHostView w, int64_t first, int64_t rows, const Packed& x, Worker& worker, float* acc) const {
  const int64_t height = kernels_.tileRows, width = kernels_.tileTokens, k = w.cols, area = height * width;
  for (int64_t c = 0; c < k; c += kDepth32) {
    const int64_t n = std::min(kDepth32, k - c);
    for (int64_t r = 0; r < rows; r += height) {
      const int64_t count = std::min(height, rows - r);
      const Columns from = columns(w, first + r, count, c, n, worker);
      float* panel = worker.panel.get<float>(size_t(height * kDepth32));
      kernels_.packRows(from.type, from.data, from.stride, count, from.column, n, panel);
      for (int64_t t = 0; t < x.tiles; ++t)
        kernels_.tile(acc + (r / height * x.tiles + t) * area, height, panel, x.tokens32 + x.at(t, c, n, 1) * width, n,
                      c > 0);
    }
  }
}

// The weights that are unpacked after a panel, on their way to the second-level cache: a part with each tile that is
// multiplied meanwhile. Pieces of rows are too short for the processor to see them coming.
class Gemm::Ahead {
 public:
  // Of rows [first, first + rows), in panels of `height`, the panel at row `r` and columns from `c` on is at work.
  Ahead(ConstHostView w, int64_t first, int64_t rows, int64_t height, int64_t r, int64_t c, int64_t tiles) {
    r += height;
    if (r >= rows) r = 0, c += kDepth8;
    if (c >= w.cols) return;
    data_ = w.row<uint8_t>(first + r) + bytesFor(w.type, c);
    stride_ = w.stride;
    rowLines_ = ceilDiv<int64_t>(int64_t(bytesFor(w.type, std::min(kDepth8, w.cols - c))), kLine);
    lines_ = std::min(height, rows - r) * rowLines_;
    share_ = ceilDiv(lines_, tiles);
  }
  void next() {
    for (const int64_t end = std::min(lines_, at_ + share_); at_ < end; ++at_)
      prefetch(data_ + size_t(at_ / rowLines_) * stride_ + at_ % rowLines_ * kLine, kLine);
  }

 private:
  static constexpr int64_t kLine = 64;
  const uint8_t* data_ = nullptr;
  size_t stride_ = 0;
  int64_t rowLines_ = 1, lines_ = 0, share_ = 0, at_ = 0;
};

void Gemm::tileRows8(const Matrix& matrix, int64_t first, int64_t rows, const Packed& x, Worker& worker,
                     float* acc) const {
  const int64_t height = kernels_.tileRows, width = kernels_.tileTokens, k = matrix.weight.cols, area = height * width;
  const int64_t panels = ceilDiv(rows, height);
  std::fill_n(acc, panels * x.tiles * area, 0.0f);
  for (int64_t c = 0; c < k; c += kDepth8) {
    const int64_t n = std::min(kDepth8, k - c);
    for (int64_t p = 0; p < panels; ++p) {
      float* out = acc + p * x.tiles * area;
      const Panel8 panel = panel8(matrix, first, rows, c, p, worker);
      // the next panel comes to the second-level cache meanwhile, a little with each tile
      const int64_t share = roundUp<int64_t>(ceilDiv(height * n, x.tiles), 64);
      Ahead ahead(matrix.weight, first, rows, height, p * height, c, x.tiles);
      for (int64_t t = 0; t < x.tiles; ++t) {
        if (panel.next) prefetch(panel.next + t * share, share);
        else ahead.next();
        const int64_t group = x.at(t, c, n, kTileGroup) * width;
        kernels_.tile8(out + t * area, panel.data, panel.scales, x.tokens8 + group * kTileGroup * kernels_.tokenBytes,
                       x.scales + group, x.offsets + group, ceilDiv(n, kTileGroup));
      }
    }
  }
}

void Gemm::tileLevels(ConstHostView w, int64_t first, int64_t rows, const Packed& x, Worker& worker, float* acc) const {
  const int64_t height = kernels_.tileRows, width = kernels_.tileTokens, k = w.cols, area = height * width;
  std::fill_n(acc, roundUp(rows, height) * x.tiles * width, 0.0f);
  uint8_t* panel = worker.panel.get<uint8_t>(size_t(kDepth8 / kBlock * kernels_.levelBlockBytes));
  for (int64_t c = 0; c < k; c += kDepth8) {
    const int64_t n = std::min(kDepth8, k - c);
    for (int64_t r = 0; r < rows; r += height) {
      kernels_.packLevels(w.type, w.row<uint8_t>(first + r), w.stride, std::min(height, rows - r), c, n, panel);
      Ahead ahead(w, first, rows, height, r, c, x.tiles);
      for (int64_t t = 0; t < x.tiles; ++t) {
        ahead.next();
        kernels_.tileLevels(w.type, acc + (r / height * x.tiles + t) * area, panel,
                            x.levels + x.at(t, c, n, kRowBlock) * width * kernels_.tokenBlockBytes, n / kBlock);
      }
    }
  }
}

void Gemm::finish(const Part& part, HostView out, int64_t first, int64_t n, Sums sums, int64_t tokens) const {
  sums.bias = part.weight.bias ? part.weight.bias + first : nullptr;
  sums.secondBias = part.second.bias ? part.second.bias + first : nullptr;
  kernels_.finish(part.epilogue, out.row<float>(0) + first, int64_t(out.stride / sizeof(float)), sums, n, tokens);
}

}  // namespace pg
