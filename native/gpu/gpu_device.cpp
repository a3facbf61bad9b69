#include "gpu/gpu_device.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "device/refusals.h"
#include "gpu/gpu_launch.h"
#include "gpu/gpu_weights.h"

namespace pg::gpu {

// ---- memory ----

// What was given back while ops that use it are gathered.
struct GpuDevice::Retired {
  bool keeps = false;
  std::vector<std::unique_ptr<Memory>> memories;
};

struct GpuDevice::Held final : DeviceMemory {
  Held(std::unique_ptr<Memory> memory, std::shared_ptr<Retired> r)
      : DeviceMemory(std::move(memory)), retired(std::move(r)) {}
  ~Held() override {
    if (retired->keeps) retired->memories.push_back(std::move(inner));
  }
  std::shared_ptr<Retired> retired;
};

GpuDevice::GpuDevice(std::unique_ptr<Driver> driver)
    : driver_(std::move(driver)), retired_(std::make_shared<Retired>()) {
  trouble_ = doAllocate(sizeof(int32_t));
}

GpuDevice::~GpuDevice() = default;

DeviceLimits GpuDevice::limits() const {
  // Blocks of rows that fill the multiprocessors and keep a feed-forward's activations below a hundred MB.
  // None pass together: nothing is unpacked for them, a picture alone fills the multiprocessors at 224 px, and the
  // memory that a card must have free is planned for one.
  return {.stepRows = 16, .blockRows = 1024, .jobs = 256, .topK = 256, .jointRows = 0};
}

Buffer GpuDevice::doAllocate(size_t bytes) {
  return Buffer(std::make_unique<Held>(driver_->allocate(bytes), retired_));
}

View GpuDevice::scratch(Scratch use, int64_t rows, int64_t cols, DType type) {
  Buffer& buffer = scratch_[size_t(use)];
  const size_t bytes = bytesFor(type, cols) * size_t(rows);
  if (buffer.bytes() < bytes) {
    buffer = Buffer();   // the two need not exist together
    buffer = doAllocate(roundUp<size_t>(bytes, size_t(1) << 16));
  }
  return buffer.view(type, rows, cols);
}

void GpuDevice::doBegin() {
  gathering_ = retired_->keeps = true;
  driver_->begin();
}

void GpuDevice::doEnd(bool complete) {
  gathering_ = retired_->keeps = false;
  const std::vector<std::unique_ptr<Memory>> free = std::move(retired_->memories);
  retired_->memories.clear();
  driver_->end(complete);
}

void GpuDevice::run(const char* kernel, Size3 groups, uint32_t threads, std::span<const uint8_t> args,
                    std::initializer_list<Binding> buffers, uint32_t groupMemory) {
  if (groups.x == 0 || groups.y == 0 || groups.z == 0) return;
  driver_->launch(kernel, groups, {threads, 1, 1}, args, {buffers.begin(), buffers.size()}, groupMemory);
}

// ---- rows ----

void GpuDevice::doGelu(View gate, ConstView up) {
  launchValues("gelu", gate.rows, gate.cols, rowArgs(gate, up), {bind(gate), bind(up)});
}

void GpuDevice::doEmbed(View out, ConstView table, ConstView ids, float scale) { widen(out, table, ids, scale); }

// out[i] = table[ids[i]] * scale; without ids table[i].
void GpuDevice::widen(View out, ConstView table, ConstView ids, float scale) {
  const ProductArgs args{.m = uint32_t(out.rows),
                         .n = floatToBits(scale),
                         .k = uint32_t(out.cols),
                         .xStride = 0,
                         .yStride = strideOf(out),
                         .wStrideBytes = uint32_t(table.stride),
                         .epilogue = kStore,
                         .parts = 1,
                         .biases = ids ? 1u : 0u};
  launchValues(kernelOf("embed_", table).c_str(), out.rows, ceilDiv<int64_t>(out.cols, 32), args,
               {bind(out), bind(table), bind(ids)});
}

void GpuDevice::doRmsNorm(View out, ConstView x, ConstView weight, float eps, bool add) {
  RowArgs args = rowArgs(out, x);
  args.number = eps, args.add = add;
  launch("rms_norm", {uint32_t(out.rows)}, 256, args, {bind(out), bind(x), bind(weight)});
}

void GpuDevice::doLayerNorm(View out, ConstView x, ConstView weight, ConstView bias, float eps) {
  RowArgs args = rowArgs(out, x);
  args.number = eps;
  launch("layer_norm", {uint32_t(out.rows)}, 256, args, {bind(out), bind(x), bind(weight), bind(bias)});
}

ConstView GpuDevice::frequencies(int64_t headDim, float theta) {
  Buffer& buffer = frequencies_[{headDim, theta}];
  const int64_t half = headDim / 2;
  if (!buffer) {
    std::vector<float> list(static_cast<size_t>(half));   // float32, as the reference computes them
    for (int64_t i = 0; i < half; ++i)
      list[size_t(i)] = float(1.0 / std::pow(double(theta), double(2 * i) / double(headDim)));
    buffer = doAllocate(list.size() * sizeof(float));
    doUpload(buffer.view(DType::f32, 1, half), list.data());
  }
  return buffer.view(DType::f32, 1, half);
}

void GpuDevice::rotate(View x, ConstView positions, int64_t headDim, float theta, float sign) {
  const RopeArgs args{.rows = uint32_t(x.rows),
                      .heads = uint32_t(x.cols / headDim),
                      .headDim = uint32_t(headDim),
                      .stride = strideOf(x),
                      .sign = sign};
  launchValues("rope", x.rows, x.cols / 2, args, {bind(x), bind(positions), bind(frequencies(headDim, theta))});
}

void GpuDevice::doRope(View x, ConstView positions, int64_t headDim, float theta) {
  rotate(x, positions, headDim, theta, 1);
}

void GpuDevice::doAdd(View x, ConstView y) {
  launchValues("add_rows", x.rows, x.cols, rowArgs(x, y), {bind(x), bind(y)});
}

void GpuDevice::doSoftcap(View x, float cap) {
  RowArgs args = rowArgs(x);
  args.number = cap;
  launchValues("softcap", x.rows, x.cols, args, {bind(x)});
}

void GpuDevice::doArgmax(View ids, ConstView x) {
  const TopArgs args{.rows = uint32_t(x.rows),
                     .count = uint32_t(x.cols),
                     .stride = strideOf(x),
                     .k = 1,
                     .chunks = 1,
                     .idStride = strideOf(ids),
                     .valueStride = 0};
  launch("argmax", {uint32_t(x.rows)}, 256, args, {bind(ids), bind(x)});
}

// The k largest of each chunk, then of chunks of these, until one chunk is left.
void GpuDevice::doTopK(View ids, View values, ConstView x) {
  constexpr int64_t kChunk = 1024;
  const int64_t k = ids.cols;
  TopArgs args{.rows = uint32_t(x.rows),
               .count = uint32_t(x.cols),
               .stride = strideOf(x),
               .k = uint32_t(k),
               .chunks = groupsOf(x.cols, kChunk),
               .idStride = strideOf(ids),
               .valueStride = strideOf(values)};
  const View flags = scratch(Scratch::flags, 1, x.rows, DType::i32);
  launch("clear_words", {groupsOf(x.rows, 256)}, 256, rowArgs(flags), {bind(flags)});
  View keys = scratch(Scratch::first, x.rows, int64_t(args.chunks) * k, DType::i64);
  launch("top_values", {args.chunks, args.rows}, 256, args, {bind(keys), bind(x), bind(flags)});
  for (Scratch next = Scratch::second; args.chunks > 1;
       next = next == Scratch::second ? Scratch::first : Scratch::second) {
    args.count = args.stride = uint32_t(int64_t(args.chunks) * k);
    args.chunks = groupsOf(args.count, kChunk);
    const View fewer = scratch(next, x.rows, int64_t(args.chunks) * k, DType::i64);
    launch("top_keys", {args.chunks, args.rows}, 256, args, {bind(fewer), bind(keys)});
    keys = fewer;
  }
  launch("top_result", {args.rows}, 256, args, {bind(ids), bind(values), bind(keys), bind(flags)});
}

// ---- copies ----

void GpuDevice::doCopy(View out, ConstView in) {
  const size_t rowBytes = bytesFor(out.type, out.cols);
  if (out.rows == 0 || rowBytes == 0) return;
  const bool whole = out.rows == 1 || (out.stride == rowBytes && in.stride == rowBytes);
  const Binding to = bind(out), from = bind(in);
  if (whole) driver_->copy(*to.memory, to.offset, *from.memory, from.offset, rowBytes * size_t(out.rows));
  else copyRows(out, in);
}

void GpuDevice::copyRows(View out, ConstView in) {
  const size_t rowBytes = bytesFor(out.type, out.cols);
  const size_t unit = (rowBytes | out.stride | in.stride | out.offset | in.offset) % 4 == 0 ? 4 : 1;
  RowArgs args{};
  args.rows = uint32_t(out.rows);
  args.cols = uint32_t(rowBytes / unit);
  args.xStride = uint32_t(out.stride / unit);
  args.yStride = uint32_t(in.stride / unit);
  launchValues(unit == 4 ? "copy_words" : "copy_bytes", out.rows, args.cols, args, {bind(out), bind(in)});
}

void GpuDevice::doUpload(View out, const void* data) {
  const size_t rowBytes = bytesFor(out.type, out.cols);
  const auto* bytes = static_cast<const uint8_t*>(data);
  std::vector<uint8_t> packed;
  if (isTakenApart(out)) {
    const PackArgs form = packing(out.type, out.cols);
    packed.resize(size_t(out.rows) * rowBytes);
    for (int64_t r = 0; r < out.rows; ++r)
      packRow(form, bytes + size_t(r) * rowBytes, packed.data() + size_t(r) * rowBytes);
    bytes = packed.data();
  }
  const Binding to = bind(out);
  const bool whole = out.stride == rowBytes;
  const size_t rows = whole ? std::min<size_t>(1, size_t(out.rows)) : size_t(out.rows);
  const size_t each = whole ? rowBytes * size_t(out.rows) : rowBytes;
  for (size_t r = 0; r < rows; ++r)
    if (each > 0) driver_->upload(*to.memory, to.offset + r * out.stride, bytes + r * rowBytes, each);
}

void GpuDevice::doDownload(void* data, ConstView in) {
  const size_t rowBytes = bytesFor(in.type, in.cols);
  auto* bytes = static_cast<uint8_t*>(data);
  const Binding from = bind(in);
  const bool whole = in.stride == rowBytes;
  const size_t rows = whole ? std::min<size_t>(1, size_t(in.rows)) : size_t(in.rows);
  const size_t each = whole ? rowBytes * size_t(in.rows) : rowBytes;
  for (size_t r = 0; r < rows; ++r)
    if (each > 0) driver_->download(bytes + r * rowBytes, *from.memory, from.offset + r * in.stride, each);
  if (isTakenApart(in)) {
    const PackArgs form = packing(in.type, in.cols);
    std::vector<uint8_t> packed(rowBytes);
    for (int64_t r = 0; r < in.rows; ++r) {
      std::memcpy(packed.data(), bytes + size_t(r) * rowBytes, rowBytes);
      unpackRow(form, packed.data(), bytes + size_t(r) * rowBytes);
    }
  }
  checkNumbers();
}

// What kernels said of the numbers they met.
void GpuDevice::checkNumbers() {
  if (!mayHaveTrouble_) return;
  mayHaveTrouble_ = false;
  int32_t trouble = 0;
  const Binding at = bind(trouble_.view(DType::i32, 1, 1));
  driver_->download(&trouble, *at.memory, at.offset, sizeof trouble);
  if (trouble == 0) return;
  const int32_t none = 0;
  driver_->upload(*at.memory, at.offset, &none, sizeof none);
  if (trouble == 1) refuseSpoiled();
  refuseTooLarge(storeLimit_);
}

}  // namespace pg::gpu
