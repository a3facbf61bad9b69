#include "cpu/cpu_device.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>
#include <vector>

#include "base/math.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace pg {
namespace {

constexpr std::align_val_t kAlign{64};   // a cache line, and the widest vector

void require(bool ok, const char* op, const char* what) {
  if (!ok) fail(Code::internal, op, ": ", what);
}

void requireF32(const char* op, ConstView a) { require(a.type == DType::f32, op, "expects f32"); }

void requireSame(const char* op, ConstView a, ConstView b) {
  requireF32(op, a);
  requireF32(op, b);
  require(a.rows == b.rows && a.cols == b.cols, op, "shapes differ");
}

void requireProduct(const char* op, View out, ConstView x, const Linear& linear) {
  requireF32(op, out);
  requireF32(op, x);
  require(x.cols == linear.in(), op, "x is not as wide as the weight");
  require(out.cols == linear.out() && out.rows == x.rows, op, "out has another shape than the product");
}

// Rows a chunk of an elementwise op holds: about 16k values.
int64_t rowGrain(ConstView x) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(1, x.cols)); }

}  // namespace

CpuDevice::CpuDevice(const Kernels& kernels, int threads)
    : kernels_(kernels), pool_(threads), gemm_(kernels, pool_), attention_(kernels, pool_) {}

Buffer CpuDevice::allocate(size_t bytes) {
  Buffer buffer = reserve(bytes);
  if (bytes > 0) std::memset(buffer.data(), 0, bytes);
  return buffer;
}

Buffer CpuDevice::reserve(size_t bytes) {
  if (bytes == 0) return {};
  void* data = ::operator new(bytes, kAlign, std::nothrow);
  if (!data)
    fail(Code::outOfMemory, "Cannot allocate ", bytes >> 20,
         " MiB. Close other programs or lower contextSize, maxSequences or the image size");
  return {this, static_cast<uint8_t*>(data), bytes};
}

Buffer CpuDevice::pack(std::span<Linear* const> weights) {
  size_t bytes = 0;
  for (const Linear* linear : weights) bytes += gemm_.packedBytes(*linear);
  Buffer buffer = reserve(bytes);
#ifdef __linux__
  // a fault for every 2 MB instead of 4 KB; a wish, nothing depends on it
  constexpr uintptr_t kHuge = 2 << 20;
  const uintptr_t begin = roundUp(reinterpret_cast<uintptr_t>(buffer.data()), kHuge);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(buffer.data()) + bytes) / kHuge * kHuge;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
  uint8_t* to = buffer.data();
  for (Linear* linear : weights) {
    const size_t size = gemm_.packedBytes(*linear);
    if (size == 0) continue;
    gemm_.pack(*linear, to);
    linear->packed = to;
    to += size;
  }
  return buffer;
}

void CpuDevice::release(uint8_t* data, size_t) noexcept { ::operator delete(data, kAlign); }

void CpuDevice::setCancel(const CancelFlag* flag) {
  gemm_.setCancel(flag);
  attention_.setCancel(flag);
}

void CpuDevice::matmul(ConstView x, std::span<const MatmulJob> jobs) {
  for (const MatmulJob& job : jobs) requireProduct("matmul", job.out, x, *job.linear);
  gemm_.matmul(x, jobs);
}

void CpuDevice::geglu(View out, ConstView x, const Linear& gate, const Linear& up) {
  requireProduct("geglu", out, x, gate);
  requireProduct("geglu", out, x, up);
  gemm_.geglu(out, x, gate, up);
}

void CpuDevice::gelu(View gate, ConstView up) {
  requireF32("gelu", gate);
  if (up) requireSame("gelu", gate, up);
  pool_.forRange(gate.rows, rowGrain(gate), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      if (up) kernels_.geluMul(gate.row<float>(r), gate.row<float>(r), up.row<float>(r), gate.cols);
      else kernels_.gelu(gate.row<float>(r), gate.cols);
    }
  });
}

void CpuDevice::embed(View out, ConstView table, std::span<const int32_t> ids, float scale) {
  requireF32("embed", out);
  require(out.cols == table.cols && out.rows == int64_t(ids.size()), "embed",
          "out has another shape than ids and table");
  for (int32_t id : ids) require(id >= 0 && id < table.rows, "embed", "id outside the table");
  pool_.forRange(out.rows, rowGrain(out), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      float* row = out.row<float>(r);
      kernels_.toF32(table.type, table.row<void>(ids[size_t(r)]), row, table.cols);
      kernels_.scale(row, scale, out.cols);
    }
  });
}

void CpuDevice::rmsNorm(View out, ConstView x, const float* weight, float eps, bool add) {
  requireSame("rmsNorm", out, x);
  pool_.forRange(x.rows, rowGrain(x), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r)
      kernels_.rmsNorm(out.row<float>(r), x.row<float>(r), weight, eps, add, x.cols);
  });
}

void CpuDevice::layerNorm(View out, ConstView x, const float* weight, const float* bias, float eps) {
  requireSame("layerNorm", out, x);
  pool_.forRange(x.rows, rowGrain(x), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r)
      kernels_.layerNorm(out.row<float>(r), x.row<float>(r), weight, bias, eps, x.cols);
  });
}

void CpuDevice::rope(View x, std::span<const int64_t> positions, int64_t headDim, float theta) {
  requireF32("rope", x);
  require(int64_t(positions.size()) == x.rows && headDim > 0 && headDim % 2 == 0 && x.cols % headDim == 0, "rope",
          "positions or head size do not fit");
  if (x.rows == 0) return;
  const float* angles = ropeAngles(*std::max_element(positions.begin(), positions.end()) + 1, headDim, theta);
  pool_.forRange(x.rows, rowGrain(x), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const float* cosines = angles + positions[size_t(r)] * headDim;
      for (int64_t c = 0; c < x.cols; c += headDim)
        kernels_.rope(x.row<float>(r) + c, cosines, cosines + headDim / 2, headDim / 2);
    }
  });
}

const float* CpuDevice::ropeAngles(int64_t positions, int64_t headDim, float theta) {
  if (rope_.headDim != headDim || rope_.theta != theta) rope_ = {headDim, theta, {}};
  const int64_t known = int64_t(rope_.angles.size()) / headDim, half = headDim / 2;
  if (positions > known) {
    const int64_t upTo = roundUp<int64_t>(positions, 256);
    rope_.angles.resize(size_t(upTo * headDim));
    std::vector<float> frequencies(static_cast<size_t>(half));   // float32, as the reference computes them
    for (int64_t i = 0; i < half; ++i)
      frequencies[size_t(i)] = float(1.0 / std::pow(double(theta), double(2 * i) / double(headDim)));
    pool_.forRange(upTo - known, 16, [&](int64_t begin, int64_t end, int) {
      for (int64_t position = known + begin; position < known + end; ++position)
        for (int64_t i = 0; i < half; ++i) {
          const float angle = float(position) * frequencies[size_t(i)];
          rope_.angles[size_t(position * headDim + i)] = std::cos(angle);
          rope_.angles[size_t(position * headDim + half + i)] = std::sin(angle);
        }
    });
  }
  return rope_.angles.data();
}

void CpuDevice::storeKv(const KvView& kv, int64_t layer, ConstView k, ConstView v, int64_t position) {
  const KvLayout& layout = *kv.layout;
  requireSame("storeKv", k, v);
  require(k.cols == layout.kvHeads * layout.headDim && layer < layout.layers, "storeKv",
          "k has another shape than the cache");
  pool_.forRange(k.rows, rowGrain(k), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t token = position + r;
      uint8_t* page = kv.pages[token / kPageTokens];
      for (int64_t head = 0; head < layout.kvHeads; ++head) {
        const size_t row = size_t(token % kPageTokens) * layout.rowBytes();
        kernels_.fromF32(layout.type, k.row<float>(r) + head * layout.headDim,
                         page + layout.headOffset(layer, 0, head) + row, layout.headDim);
        kernels_.fromF32(layout.type, v.row<float>(r) + head * layout.headDim,
                         page + layout.headOffset(layer, 1, head) + row, layout.headDim);
      }
    }
  });
}

void CpuDevice::attention(std::span<const AttentionJob> jobs, int64_t layer, float scale, float softcap,
                          Precision precision) {
  for (const AttentionJob& job : jobs) {
    requireSame("attention", job.out, job.q);
    const KvLayout& layout = *job.kv.layout;
    require(job.q.cols % (layout.kvHeads * layout.headDim) == 0 && layer < layout.layers, "attention",
            "q does not fit the cache");
  }
  if (!jobs.empty()) attention_.paged(jobs, layer, scale, softcap, precision);
}

void CpuDevice::denseAttention(View out, ConstView q, ConstView k, ConstView v, int64_t heads, float scale,
                               Precision precision) {
  requireSame("denseAttention", out, q);
  requireSame("denseAttention", k, v);
  require(q.cols == k.cols && q.cols % heads == 0, "denseAttention", "widths do not fit the heads");
  attention_.dense(out, q, k, v, heads, scale, precision);
}

void CpuDevice::add(View x, ConstView y) {
  requireF32("add", x);
  requireF32("add", y);
  require(y.rows > 0 && x.rows % y.rows == 0 && x.cols == y.cols, "add", "shapes do not fit");
  pool_.forRange(x.rows, rowGrain(x), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; ++r) kernels_.add(x.row<float>(r), y.row<float>(r % y.rows), x.cols);
  });
}

void CpuDevice::softcap(View x, float cap) {
  requireF32("softcap", x);
  constexpr int64_t kGrain = 8192;
  for (int64_t r = 0; r < x.rows; ++r)
    pool_.forRange(x.cols, kGrain, [&](int64_t begin, int64_t end, int) {
      kernels_.softcap(x.row<float>(r) + begin, cap, end - begin);
    });
}

void CpuDevice::copy(View out, ConstView in) {
  require(out.type == in.type && out.rows == in.rows && out.cols == in.cols, "copy", "shapes differ");
  for (int64_t r = 0; r < out.rows; ++r)
    std::memcpy(out.row<uint8_t>(r), in.row<uint8_t>(r), bytesFor(out.type, out.cols));
}

void CpuDevice::upload(View out, const void* data) {
  const size_t rowBytes = bytesFor(out.type, out.cols);
  for (int64_t r = 0; r < out.rows; ++r)
    std::memcpy(out.row<uint8_t>(r), static_cast<const uint8_t*>(data) + size_t(r) * rowBytes, rowBytes);
}

void CpuDevice::download(void* data, ConstView in) {
  const size_t rowBytes = bytesFor(in.type, in.cols);
  for (int64_t r = 0; r < in.rows; ++r)
    std::memcpy(static_cast<uint8_t*>(data) + size_t(r) * rowBytes, in.row<uint8_t>(r), rowBytes);
}

}  // namespace pg
