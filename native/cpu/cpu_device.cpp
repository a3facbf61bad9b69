#include "cpu/cpu_device.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "base/math.h"
#include "base/half.h"
#include "base/largest.h"
#include "device/refusals.h"

namespace pg {

CpuDevice::CpuDevice(const Kernels& kernels, int threads)
    : kernels_(kernels),
      pool_(threads),
      gemm_(kernels, pool_),
      attention_(kernels, pool_),
      products_(kernels, pool_),
      attentionBackward_(kernels, pool_, products_),
      packed_(gemm_) {}

DeviceLimits CpuDevice::limits() const {
  // Blocks large enough that unpacking weights for them costs little, small enough that a feed-forward's activations
  // stay a few tens of MB.
  // Two pictures of 224 px with prompts of up to 32 tokens pass together where unpacking weights is a sixth of a
  // prefill: they share it, see Gemm's kBlockTokens. With narrower tiles it is less than what their rows lose in the
  // second-level cache.
  const bool wide = isa().starts_with("avx512") || isa().starts_with("amx");
  return {.stepRows = kMaxDecodeTokens,
          .blockRows = 512,
          .jobs = 256,
          .topK = 256,
          .jointRows = wide ? int64_t(576) : int64_t(0)};
}

void CpuDevice::setCancel(const CancelFlag* flag) {
  gemm_.setCancel(flag);
  attention_.setCancel(flag);
  products_.setCancel(flag);
  attentionBackward_.setCancel(flag);
}

Buffer CpuDevice::doAllocate(size_t bytes) {
  AlignedBytes data = allocateAligned(bytes);
  if (!data)
    fail(Code::outOfMemory, "Cannot allocate ", bytes >> 20,
         " MiB. Close other programs or lower contextSize, maxSequences or the image size");
  std::memset(data.get(), 0, bytes);
  return Buffer(std::make_unique<OwnMemory>(std::move(data), bytes));
}

// Files are used where they are mapped; the rest is copied.
std::vector<Buffer> CpuDevice::doPlace(std::span<const Placement> weights) {
  std::vector<Buffer> buffers;
  std::map<const MappedFile*, const Memory*> files;
  size_t copied = 0;
  for (const Placement& w : weights) {
    if (!w.file) {
      copied += roundUp<size_t>(bytesFor(w.host.type, w.host.cols) * size_t(w.host.rows), 64);
      continue;
    }
    const Memory*& memory = files[w.file.get()];
    if (!memory) memory = buffers.emplace_back(std::make_unique<FileMemory>(w.file)).memory();
    *w.to = {memory, size_t(w.host.data - w.file->data()), w.host.type, w.host.rows, w.host.cols, w.host.stride};
    if (w.manyRows) packed_.add(w.host, w.file);
  }
  if (copied == 0) return buffers;
  const Buffer& copies = buffers.emplace_back(doAllocate(copied));
  size_t at = 0;
  for (const Placement& w : weights) {
    if (w.file) continue;
    const View to = copies.view(w.host.type, w.host.rows, w.host.cols, at);
    for (int64_t r = 0; r < to.rows; ++r) std::memcpy(onHost(to).row<uint8_t>(r), w.host.row<uint8_t>(r), to.stride);
    *w.to = to;
    at += roundUp<size_t>(to.bytes(), 64);
  }
  return buffers;
}

Gemm::Matrix CpuDevice::matrix(const Linear& linear, int64_t rows) {
  const ConstHostView weight = onHost(linear.weight);
  return {weight, gemm_.tiles(rows) ? packed_.find(weight, submission_) : nullptr, valuesOf(linear.bias)};
}

void CpuDevice::doMatmul(ConstView x, std::span<const MatmulJob> jobs) {
  parts_.clear();
  for (const MatmulJob& job : jobs) parts_.push_back({onHost(job.out), matrix(*job.linear, x.rows), {}, job.epilogue});
  gemm_.run(onHost(x), parts_);
}

void CpuDevice::doGeglu(View out, ConstView x, const Linear& gate, const Linear& up) {
  parts_.assign(1, {onHost(out), matrix(gate, x.rows), matrix(up, x.rows), Epilogue::geglu});
  gemm_.run(onHost(x), parts_);
}

void CpuDevice::doGelu(View gateView, ConstView upView) {
  const HostView gate = onHost(gateView);
  const ConstHostView up = onHost(upView);
  forRows(gate.rows, gate.cols, [&](int64_t r) {
    if (up) kernels_.geluMul(gate.row<float>(r), gate.row<float>(r), up.row<float>(r), gate.cols);
    else kernels_.gelu(gate.row<float>(r), gate.cols);
  });
}

void CpuDevice::doEmbed(View outView, ConstView tableView, ConstView ids, float scale) {
  const HostView out = onHost(outView);
  const ConstHostView table = onHost(tableView), rows = onHost(ids);
  forRows(out.rows, out.cols, [&](int64_t r) {
    float* row = out.row<float>(r);
    kernels_.toF32(table.type, table.row<void>(*rows.row<int32_t>(r)), row, table.cols);
    kernels_.scale(row, scale, out.cols);
  });
}

void CpuDevice::doRmsNorm(View outView, ConstView xView, ConstView weight, float eps, bool add) {
  const HostView out = onHost(outView);
  const ConstHostView x = onHost(xView);
  const float* factors = valuesOf(weight);
  forRows(x.rows, x.cols,
          [&](int64_t r) { kernels_.rmsNorm(out.row<float>(r), x.row<float>(r), factors, eps, add, x.cols); });
}

void CpuDevice::doLayerNorm(View outView, ConstView xView, ConstView weight, ConstView bias, float eps) {
  const HostView out = onHost(outView);
  const ConstHostView x = onHost(xView);
  const float *factors = valuesOf(weight), *offsets = valuesOf(bias);
  forRows(x.rows, x.cols,
          [&](int64_t r) { kernels_.layerNorm(out.row<float>(r), x.row<float>(r), factors, offsets, eps, x.cols); });
}

void CpuDevice::doRope(View xView, ConstView positionView, int64_t headDim, float theta) {
  const HostView x = onHost(xView);
  const ConstHostView positions = onHost(positionView);
  const float* angles = ropeAngles(lastPosition(positions) + 1, headDim, theta);
  forRows(x.rows, x.cols, [&](int64_t r) {
    const float* cosines = angles + *positions.row<int32_t>(r) * headDim;
    for (int64_t c = 0; c < x.cols; c += headDim)
      kernels_.rope(x.row<float>(r) + c, cosines, cosines + headDim / 2, headDim / 2);
  });
}

int64_t CpuDevice::lastPosition(ConstHostView positions) {
  int64_t last = 0;
  for (int64_t r = 0; r < positions.rows; ++r) last = std::max<int64_t>(last, *positions.row<int32_t>(r));
  return last;
}

const float* CpuDevice::ropeAngles(int64_t positions, int64_t headDim, float theta) {
  if (rope_.headDim != headDim || rope_.theta != theta) rope_ = {headDim, theta, {}};
  const int64_t known = int64_t(rope_.angles.size()) / headDim, half = headDim / 2;
  if (positions > known) {
    const int64_t upTo = roundUp<int64_t>(positions, 256);
    rope_.angles.resize(size_t(upTo * headDim));
    std::vector<float> frequencies(static_cast<size_t>(half));  // float32, as the reference computes them
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

// What is larger would become infinite.
static void checkFits(ConstHostView x, DType type) {
  if (type != DType::f16 && type != DType::q8_0) return;
  const float limit = type == DType::f16 ? kLargestHalf : 127 * kLargestHalf;
  for (int64_t r = 0; r < x.rows; ++r) {
    uint32_t most = 0;
    for (int64_t c = 0; c < x.cols; ++c) most = std::max(most, floatToBits(x.row<float>(r)[c]) & 0x7fffffff);
    if (most > floatToBits(limit)) refuseTooLarge(limit);
  }
}

void CpuDevice::doStoreKv(const KvView& kv, int64_t layer, ConstView kView, ConstView vView, ConstView positionView) {
  const KvLayout& layout = *kv.layout;
  const ConstHostView k = onHost(kView), v = onHost(vView), positions = onHost(positionView), pages = onHost(kv.pages);
  gemm_.checkFinite(k);
  gemm_.checkFinite(v);
  checkFits(k, layout.type);
  checkFits(v, layout.type);
  forRows(k.rows, k.cols, [&](int64_t r) {
    const int64_t token = *positions.row<int32_t>(r);
    uint8_t* page = hostPointer(*pages.row<uint64_t>(token / kPageTokens));
    const size_t row = size_t(token % kPageTokens) * layout.rowBytes();
    for (int64_t head = 0; head < layout.kvHeads; ++head) {
      kernels_.fromF32(layout.type, k.row<float>(r) + head * layout.headDim,
                       page + layout.headOffset(layer, 0, head) + row, layout.headDim);
      kernels_.fromF32(layout.type, v.row<float>(r) + head * layout.headDim,
                       page + layout.headOffset(layer, 1, head) + row, layout.headDim);
    }
  });
}

void CpuDevice::doAttention(std::span<const AttentionJob> jobs, const AttentionParams& params) {
  pagedJobs_.clear();
  for (const AttentionJob& job : jobs) gemm_.checkFinite(onHost(job.q));
  for (const AttentionJob& job : jobs)
    if (job.q.rows > 0)
      pagedJobs_.push_back({onHost(job.out), onHost(job.q), job.kv.layout, onHost(job.kv.pages).row<uint64_t>(0),
                            *onHost(job.positions).row<int32_t>(0), job.mask});
  if (!pagedJobs_.empty()) attention_.paged(pagedJobs_, params);
}

void CpuDevice::doDenseAttention(View out, ConstView q, ConstView k, ConstView v, int64_t heads, float scale,
                                 Precision precision) {
  for (const ConstView x : {q, k, v}) gemm_.checkFinite(onHost(x));
  attention_.dense(onHost(out), onHost(q), onHost(k), onHost(v), heads, scale, precision);
}

void CpuDevice::doAdd(View xView, ConstView yView) {
  const HostView x = onHost(xView);
  const ConstHostView y = onHost(yView);
  forRows(x.rows, x.cols, [&](int64_t r) { kernels_.add(x.row<float>(r), y.row<float>(r % y.rows), x.cols); });
}

void CpuDevice::doSoftcap(View xView, float cap) {
  const HostView x = onHost(xView);
  constexpr int64_t kGrain = 8192;
  for (int64_t r = 0; r < x.rows; ++r)
    pool_.forRange(x.cols, kGrain, [&](int64_t begin, int64_t end, int) {
      kernels_.softcap(x.row<float>(r) + begin, cap, end - begin);
    });
}

void CpuDevice::doArgmax(View ids, ConstView xView) {
  const ConstHostView x = onHost(xView);
  for (int64_t r = 0; r < x.rows; ++r) {
    const std::span<const float> values{x.row<float>(r), size_t(x.cols)};
    *onHost(ids).row<int32_t>(r) = hasNan(values) ? kHoldsNan : largestOf(values);
  }
}

void CpuDevice::doTopK(View idView, View valueView, ConstView xView) {
  const ConstHostView x = onHost(xView);
  const HostView ids = onHost(idView), values = onHost(valueView);
  for (int64_t r = 0; r < x.rows; ++r) {
    const std::span<const float> row{x.row<float>(r), size_t(x.cols)};
    largestK(row, {ids.row<int32_t>(r), size_t(ids.cols)}, values.row<float>(r));
    if (hasNan(row)) *ids.row<int32_t>(r) = kHoldsNan;
  }
}

void CpuDevice::doCopy(View outView, ConstView inView) {
  const HostView out = onHost(outView);
  const ConstHostView in = onHost(inView);
  for (int64_t r = 0; r < out.rows; ++r)
    std::memcpy(out.row<uint8_t>(r), in.row<uint8_t>(r), bytesFor(out.type, out.cols));
}

void CpuDevice::doUpload(View outView, const void* data) {
  const HostView out = onHost(outView);
  const size_t rowBytes = bytesFor(out.type, out.cols);
  for (int64_t r = 0; r < out.rows; ++r)
    std::memcpy(out.row<uint8_t>(r), static_cast<const uint8_t*>(data) + size_t(r) * rowBytes, rowBytes);
}

void CpuDevice::doDownload(void* data, ConstView inView) {
  const ConstHostView in = onHost(inView);
  const size_t rowBytes = bytesFor(in.type, in.cols);
  for (int64_t r = 0; r < in.rows; ++r)
    std::memcpy(static_cast<uint8_t*>(data) + size_t(r) * rowBytes, in.row<uint8_t>(r), rowBytes);
}

}  // namespace pg
