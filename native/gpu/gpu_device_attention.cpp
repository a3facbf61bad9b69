// The cache and attention: of rows that come alone, in pieces of their keys; of many, on tensor cores where they can.
#include <algorithm>

#include "base/half.h"
#include "device/refusals.h"
#include "gpu/gpu_launch.h"

namespace pg::gpu {

void GpuDevice::doStoreKv(const KvView& kv, int64_t layer, ConstView k, ConstView v, ConstView positions) {
  const KvLayout& layout = *kv.layout;
  const StoreKvArgs args{.pages = kv.pages.address(),
                         .headBytes = layout.headBytes(),
                         .rowBytes = layout.rowBytes(),
                         .keyBytes = layout.headOffset(layer, 0, 0),
                         .valueBytes = layout.headOffset(layer, 1, 0),
                         .rows = uint32_t(k.rows),
                         .kvHeads = uint32_t(layout.kvHeads),
                         .headDim = uint32_t(layout.headDim),
                         .kStride = strideOf(k),
                         .vStride = strideOf(v),
                         .positionStride = strideOf(positions)};
  const int64_t cols = layout.type == DType::q8_0 ? k.cols / 32 : k.cols;
  launchValues(kernelOf("store_kv_", layout.type).c_str(), k.rows, cols, args,
               {bind(k), bind(v), bind(positions), bind(trouble_.view(DType::i32, 1, 1))});
  mayHaveTrouble_ = true;
  storeLimit_ = layout.type == DType::q8_0 ? 127 * kLargestHalf : kLargestHalf;
  if (!gathering_) checkNumbers();
}

namespace {

// As the kernels have them: kernels/attention.cu
constexpr int64_t kPieceKeys = 256, kFoldHeads = 8, kMostHeadDim = 512;

// Of kernels/flash.cu: FlashShape
struct FlashShape {
  const char* kernels;
  int64_t dim, rows, keys;
  bool both;   // keys and values have their own places
  uint32_t threads() const { return uint32_t(rows * 2); }
  uint32_t sharedBytes() const {
    const int64_t keyValues = keys * (dim + 8), values = dim * (keys + 8);
    return uint32_t(2 * (rows * (dim + 8) + (both ? keyValues + values : std::max(keyValues, values))));
  }
};
constexpr FlashShape kFlashShapes[] = {
    {"flash_80", 80, 64, 32, true}, {"flash_256", 256, 64, 32, true}, {"flash_narrow_256", 256, 32, 16, false}};

// The first that holds heads of this size and that the GPU has memory for, or none.
const FlashShape* flashShape(const DriverInfo& gpu, int64_t headDim) {
  if (!gpu.matrixUnits) return nullptr;
  for (const FlashShape& shape : kFlashShapes)
    if (headDim <= shape.dim && shape.sharedBytes() <= gpu.groupMemoryBytes) return &shape;
  return nullptr;
}

// The same memory, so that one launch reaches all of them by an offset.
bool sameMemory(const AttentionJob& a, const AttentionJob& b) {
  return a.q.memory == b.q.memory && a.out.memory == b.out.memory && a.positions.memory == b.positions.memory &&
         a.q.stride == b.q.stride && a.out.stride == b.out.stride;
}

int64_t valuesFrom(ConstView first, ConstView view) {
  return (int64_t(view.offset) - int64_t(first.offset)) / int64_t(sizeof(float));
}

void checkHeads(int64_t headDim) {
  if (headDim > kMostHeadDim)
    fail(Code::modelUnsupported, "Heads of ", headDim, " values are more than the GPU's kernels take (", kMostHeadDim,
         "). Use device \"cpu\"");
}

}  // namespace

void GpuDevice::doAttention(std::span<const AttentionJob> jobs, const AttentionParams& params) {
  checkHeads(jobs.front().kv.layout->headDim);
  // a row that comes alone is decoding, whatever comes with it: it is computed as it would be alone
  for (const bool single : {true, false}) {
    std::vector<const AttentionJob*> list;
    const auto flush = [&] {
      if (list.empty()) return;
      if (single) attendSingle(list, params);
      else attendMany(list, params);
      list.clear();
    };
    for (const AttentionJob& job : jobs) {
      if (job.q.rows == 0 || (job.q.rows == 1) != single) continue;
      if (list.size() == kAttentionSequences || (!list.empty() && !sameMemory(*list.front(), job))) flush();
      list.push_back(&job);
    }
    flush();
  }
}

AttentionArgs GpuDevice::attentionArgs(Sequences jobs, const AttentionParams& params) const {
  const AttentionJob& first = *jobs.front();
  const KvLayout& layout = *first.kv.layout;
  AttentionArgs args{};
  args.headBytes = layout.headBytes(), args.rowBytes = layout.rowBytes();
  args.keyBytes = layout.headOffset(params.layer, 0, 0), args.valueBytes = layout.headOffset(params.layer, 1, 0);
  args.kvHeads = uint32_t(layout.kvHeads), args.headDim = uint32_t(layout.headDim);
  args.group = uint32_t(first.q.cols / layout.headDim / layout.kvHeads);
  args.qStride = strideOf(first.q), args.outStride = strideOf(first.out);
  args.scale = params.scale, args.softcap = params.softcap;
  for (const AttentionJob* job : jobs) {
    args.sequence[args.sequences++] = {.pages = job->kv.pages.address(),
                                       .qOffset = valuesFrom(first.q, job->q),
                                       .outOffset = valuesFrom(first.out, job->out),
                                       .positionOffset = valuesFrom(first.positions, job->positions),
                                       .prefix = int32_t(job->mask.prefix),
                                       .window = int32_t(job->mask.window),
                                       .windowInPrefix = job->mask.windowInPrefix,
                                       .tokens = uint32_t(job->kv.tokens),
                                       .rows = uint32_t(job->q.rows),
                                       .firstRow = args.rows};
    args.rows += uint32_t(job->q.rows);
    args.mostRows = std::max(args.mostRows, uint32_t(job->q.rows));
    args.pieces = std::max(args.pieces, groupsOf(job->kv.tokens, kPieceKeys));
  }
  return args;
}

void GpuDevice::attendSingle(Sequences jobs, const AttentionParams& params) {
  const AttentionJob& first = *jobs.front();
  const AttentionArgs args = attentionArgs(jobs, params);
  const uint32_t heads = args.kvHeads * groupsOf(args.group, kFoldHeads), all = args.kvHeads * args.group;
  const View partial = scratch(Scratch::first, int64_t(args.rows) * args.pieces, int64_t(all) * (args.headDim + 2));
  launch(kernelOf("attention_pieces_", first.kv.layout->type).c_str(), {args.rows, heads, args.pieces}, 128, args,
         {bind(partial), bind(first.q), bind(first.positions)});
  launch("attention_combine", {args.rows, all}, 128, args, {bind(first.out), bind(partial), bind(first.positions)});
}

void GpuDevice::attendMany(Sequences jobs, const AttentionParams& params) {
  const AttentionJob& first = *jobs.front();
  const DType type = first.kv.layout->type;
  const AttentionArgs args = attentionArgs(jobs, params);
  const std::initializer_list<Binding> buffers = {bind(first.out), bind(first.q), bind(first.positions)};
  const FlashShape* shape = flashShape(driver_->info(), args.headDim);
  if (shape && type != DType::f32 && params.precision != Precision::exact) {
    const uint32_t blocks = groupsOf(int64_t(args.mostRows) * args.group, shape->rows);
    const std::string kernel = shape->kernels + kernelOf("_", type);
    return launch(kernel.c_str(), {blocks, args.kvHeads, args.sequences}, shape->threads(), args, buffers,
                  shape->sharedBytes());
  }
  launch(kernelOf("attention_rows_", type).c_str(), {args.rows, args.kvHeads * groupsOf(args.group, kFoldHeads)}, 128,
         args, buffers);
}

void GpuDevice::doDenseAttention(View out, ConstView q, ConstView k, ConstView v, int64_t heads, float scale,
                                 Precision precision) {
  checkHeads(q.cols / heads);
  const DenseArgs args{.rows = uint32_t(q.rows),
                       .keys = uint32_t(k.rows),
                       .heads = uint32_t(heads),
                       .headDim = uint32_t(q.cols / heads),
                       .qStride = strideOf(q),
                       .kStride = strideOf(k),
                       .vStride = strideOf(v),
                       .outStride = strideOf(out),
                       .scale = scale};
  const std::initializer_list<Binding> buffers = {bind(out), bind(q), bind(k), bind(v)};
  const FlashShape* shape = flashShape(driver_->info(), args.headDim);
  if (shape && precision != Precision::exact)
    return launch((std::string(shape->kernels) + "_dense").c_str(), {groupsOf(q.rows, shape->rows), args.heads},
                  shape->threads(), args, buffers, shape->sharedBytes());
  launch("dense_rows", {args.rows, args.heads}, 128, args, buffers);
}

}  // namespace pg::gpu
