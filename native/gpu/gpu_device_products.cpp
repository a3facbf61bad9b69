// Products: by tensor cores where they can, in f32 else.
#include <algorithm>

#include "gpu/gpu_launch.h"
#include "gpu/gpu_weights.h"

namespace pg::gpu {

namespace {

constexpr int64_t kStepRows = 16;

// Whether tensor-core kernels read the rows where they lie: whole groups of 32 values in words of 16 bytes, or blocks.
bool readsGroups(ConstView w) {
  if (w.type == DType::f32 || !keepsType(w.type)) return false;
  if (isTakenApart(w.type) && !isTakenApart(w)) return true;
  const int64_t whole = isTakenApart(w.type) ? w.cols : roundUp<int64_t>(w.cols, 32);
  return w.stride % 16 == 0 && w.address() % 16 == 0 && (w.rows == 1 || w.stride >= bytesFor(w.type, whole));
}

uint32_t endOf(Epilogue epilogue) {
  return epilogue == Epilogue::gelu ? kGelu : epilogue == Epilogue::add ? kAdd : kStore;
}

ProductArgs productArgs(View y, ConstView w, ConstView bias) {
  return {.m = uint32_t(y.rows),
          .n = uint32_t(w.rows),
          .k = uint32_t(w.cols),
          .xStride = 0,
          .yStride = strideOf(y),
          .wStrideBytes = uint32_t(w.stride),
          .epilogue = kStore,
          .parts = 1,
          .biases = bias ? 1u : 0u};
}

}  // namespace

void GpuDevice::doMatmul(ConstView x, std::span<const MatmulJob> jobs) {
  Halves halves;   // of x: jobs with weights alike share them
  for (const MatmulJob& job : jobs) {
    if (usesMatrixUnits(job.linear->weight)) matrixProduct(job.out, x, *job.linear, job.epilogue, halves);
    else product(job.out, x, *job.linear, job.epilogue);
  }
}

void GpuDevice::doGeglu(View out, ConstView x, const Linear& gate, const Linear& up) {
  const ConstView w = gate.weight;
  const std::string kernel = kernelOf("step_gated_", w);
  if (x.rows <= kStepRows && usesMatrixUnits(w) && usesMatrixUnits(up.weight) &&
      kernel == kernelOf("step_gated_", up.weight) && w.stride == up.weight.stride) {
    const Halves halves = round(x, w.type);
    ProductArgs args = productArgs(out, w, gate.bias);
    args.xStride = halves.padded, args.parts = halves.parts;
    if (up.bias) args.biases |= 2;
    return launch(
        kernel.c_str(), {groupsOf(w.rows, 16)}, 256, args,
        {bind(out), bind(halves.rows), bind(halves.factors), bind(w), bind(up.weight), bind(gate.bias), bind(up.bias)});
  }
  const View second = scratch(Scratch::product, out.rows, out.cols);
  const MatmulJob jobs[] = {{out, &gate}, {second, &up}};
  doMatmul(x, jobs);
  doGelu(out, second);
}

bool GpuDevice::usesMatrixUnits(ConstView weight) const { return driver_->info().matrixUnits && readsGroups(weight); }

// x as tensor cores take it: bf16 for weights of bf16, else f16. Exact weights meet both halves of x; those of bf16
// only in steps, which are bound by memory: with many rows one product is what their users expect.
GpuDevice::Halves GpuDevice::round(ConstView x, DType weights) {
  const bool brain = weights == DType::bf16, exact = !isTakenApart(weights) && (!brain || x.rows <= kStepRows);
  const HalvesArgs args{.rows = uint32_t(x.rows),
                        .cols = uint32_t(x.cols),
                        .xStride = strideOf(x),
                        .padded = uint32_t(roundUp<int64_t>(x.cols, 64)),
                        .parts = exact ? 2u : 1u,
                        .brain = brain};
  Halves halves{.rows = scratch(Scratch::halves, x.rows, int64_t(args.parts) * args.padded, DType::f16),
                .factors = scratch(Scratch::scales, 1, x.rows),
                .padded = args.padded,
                .parts = args.parts,
                .brain = brain};
  launch("half_rows", {args.rows}, 256, args,
         {bind(halves.rows), bind(halves.factors), bind(x), bind(trouble_.view(DType::i32, 1, 1))});
  mayHaveTrouble_ = true;
  return halves;
}

// halves: of x, for other weights or none; replaced where they do not suit these.
void GpuDevice::matrixProduct(View y, ConstView x, const Linear& linear, Epilogue epilogue, Halves& halves) {
  const ConstView w = linear.weight;
  const bool brain = w.type == DType::bf16, plain = w.type == DType::f16;
  if (!halves.rows || halves.brain != brain || (plain && halves.parts == 1)) halves = round(x, w.type);
  ProductArgs args = productArgs(y, w, linear.bias);
  args.xStride = halves.padded, args.parts = halves.parts;
  const std::initializer_list<Binding> buffers = {bind(y), bind(halves.rows), bind(halves.factors), bind(w),
                                                  bind(linear.bias)};
  if (x.rows <= kStepRows) {
    args.epilogue = endOf(epilogue);
    return launch(kernelOf("step_", w).c_str(), {groupsOf(w.rows, 16)}, 256, args, buffers);
  }
  args.epilogue = epilogue == Epilogue::add ? kAdd : kStore;
  launch(kernelOf("tile_", w).c_str(), {groupsOf(w.rows, 64), groupsOf(x.rows, 128)}, 128, args, buffers);
  if (epilogue == Epilogue::gelu) doGelu(y, {});
}

void GpuDevice::eachWideRows(ConstView weight, const std::function<void(ConstView, int64_t)>& use) {
  constexpr int64_t kMostBytes = int64_t(64) << 20;
  if (weight.type == DType::f32) return use(weight, 0);
  const int64_t most = std::max<int64_t>(1, kMostBytes / (weight.cols * int64_t(sizeof(float))));
  for (int64_t first = 0; first < weight.rows; first += most) {
    const int64_t rows = std::min(most, weight.rows - first);
    const View wide = scratch(Scratch::wide, rows, weight.cols);
    widen(wide, weight.slice(first, rows), {}, 1);
    use(wide, first);
  }
}

// In f32
void GpuDevice::product(View y, ConstView x, const Linear& linear, Epilogue epilogue) {
  constexpr int64_t kWarps = 4, kRows = 8;
  eachWideRows(linear.weight, [&](ConstView w, int64_t first) {
    const View out = y.columns(first, w.rows);
    ProductArgs args = productArgs(out, w, linear.bias);
    args.xStride = strideOf(x), args.epilogue = endOf(epilogue);
    launch("product_f32", {groupsOf(w.rows, kWarps), groupsOf(x.rows, kRows)}, kWarps * 32, args,
           {bind(out), bind(x), bind(w), bind(linear.bias ? linear.bias.columns(first, w.rows) : ConstView())});
  });
}

}  // namespace pg::gpu
