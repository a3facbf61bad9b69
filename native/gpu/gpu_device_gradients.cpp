// The ops of training.
#include "gpu/gpu_launch.h"

namespace pg::gpu {

void GpuDevice::doMatmulGrad(View dx, ConstView dy, const Linear& linear, bool add) {
  constexpr int64_t kThreads = 128, kRows = 4;
  eachWideRows(linear.weight, [&](ConstView w, int64_t first) {
    const ProductArgs args{.m = uint32_t(dx.rows),
                           .n = uint32_t(w.rows),
                           .k = uint32_t(w.cols),
                           .xStride = strideOf(dx),
                           .yStride = strideOf(dy),
                           .wStrideBytes = uint32_t(w.stride),
                           .epilogue = add || first > 0 ? kAdd : kStore,
                           .parts = 1};
    launch("product_grad_f32", {groupsOf(w.cols, kThreads), groupsOf(dx.rows, kRows)}, kThreads, args,
           {bind(dx), bind(dy.columns(first, w.rows)), bind(w)});
  });
}

void GpuDevice::doDropout(View out, ConstView x, const Dropout& dropout, bool add) {
  const DropoutArgs args{.key = dropout.key,
                         .rows = uint32_t(x.rows),
                         .cols = uint32_t(x.cols),
                         .outStride = strideOf(out),
                         .xStride = strideOf(x),
                         .threshold = dropout.threshold(),
                         .factor = dropout.factor(),
                         .add = add};
  launchValues("dropout", x.rows, x.cols, args, {bind(out), bind(x)});
}

void GpuDevice::doAddOuter(View out, ConstView y, ConstView x, float scale) {
  const OuterArgs args{.m = uint32_t(y.rows),
                       .rows = uint32_t(out.rows),
                       .cols = uint32_t(out.cols),
                       .outStride = strideOf(out),
                       .yStride = strideOf(y),
                       .xStride = strideOf(x),
                       .scale = scale};
  launchValues("add_outer", out.rows, out.cols, args, {bind(out), bind(y), bind(x)});
}

void GpuDevice::doGegluGrad(View gate, View up, ConstView d) {
  launchValues("geglu_grad", gate.rows, gate.cols, rowArgs(gate, up, d), {bind(gate), bind(up), bind(d)});
}

void GpuDevice::doGeluGrad(View d, ConstView x) {
  launchValues("gelu_grad", d.rows, d.cols, rowArgs(d, x), {bind(d), bind(x)});
}

void GpuDevice::doRmsNormGrad(View dx, ConstView dy, ConstView x, ConstView weight, float eps, bool add) {
  RowArgs args = rowArgs(dx, dy, x);
  args.number = eps, args.add = add;
  launch("rms_norm_grad", {args.rows}, 256, args, {bind(dx), bind(dy), bind(x), bind(weight)});
}

void GpuDevice::doLayerNormGrad(View dx, ConstView dy, ConstView x, ConstView weight, float eps, bool add) {
  RowArgs args = rowArgs(dx, dy, x);
  args.number = eps, args.add = add;
  launch("layer_norm_grad", {args.rows}, 256, args, {bind(dx), bind(dy), bind(x), bind(weight)});
}

void GpuDevice::doRopeGrad(View d, ConstView positions, int64_t headDim, float theta) {
  rotate(d, positions, headDim, theta, -1);
}

// A KV head at a time: the weights of all rows of its queries exist, but not of all heads.
void GpuDevice::doAttentionGrad(const AttentionGrad& job) {
  const int64_t n = job.q.rows, group = job.heads / job.kvHeads;
  const View p = scratch(Scratch::first, group * n, n), ds = scratch(Scratch::second, group * n, n);
  for (int64_t head = 0; head < job.kvHeads; ++head) {
    const AttentionGradArgs args{.n = uint32_t(n),
                                 .group = uint32_t(group),
                                 .headDim = uint32_t(job.q.cols / job.heads),
                                 .firstHead = uint32_t(head * group),
                                 .kvHead = uint32_t(head),
                                 .qStride = strideOf(job.q),
                                 .kStride = strideOf(job.k),
                                 .doutStride = strideOf(job.dout),
                                 .dqStride = strideOf(job.dq),
                                 .dkStride = strideOf(job.dk),
                                 .dvStride = strideOf(job.dv),
                                 .vStride = strideOf(job.v),
                                 .prefix = int32_t(job.mask.prefix),
                                 .window = int32_t(job.mask.window),
                                 .windowInPrefix = job.mask.windowInPrefix,
                                 .scale = job.scale,
                                 .softcap = job.softcap};
    launch("attention_grad_rows", {args.n, args.group}, 128, args,
           {bind(p), bind(ds), bind(job.dq), bind(job.dout), bind(job.q), bind(job.k), bind(job.v)});
    launch("attention_grad_keys", {args.n}, 128, args,
           {bind(job.dk), bind(job.dv), bind(p), bind(ds), bind(job.dout), bind(job.q)});
  }
}

void GpuDevice::doSoftmaxLoss(View losses, View logits, ConstView targets, float cap) {
  RowArgs args = rowArgs(losses, logits);
  args.cols = uint32_t(logits.cols), args.number = cap;
  launch("softmax_loss", {args.rows}, 256, args, {bind(losses), bind(logits), bind(targets)});
}

}  // namespace pg::gpu
