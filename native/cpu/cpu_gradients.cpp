// The ops of training on the CPU.
#include <algorithm>

#include "cpu/cpu_device.h"

namespace pg {

void CpuDevice::doMatmulGrad(View dx, ConstView dy, const Linear& linear, bool add) {
  products_.run(onHost(dx), {onHost(dy)}, {onHost(linear.weight), true}, 1, add);
}

void CpuDevice::doDropout(View outView, ConstView xView, const Dropout& dropout, bool add) {
  const HostView out = onHost(outView);
  const ConstHostView x = onHost(xView);
  const uint32_t threshold = dropout.threshold();
  const float factor = dropout.factor();
  forRows(x.rows, x.cols, [&](int64_t r) {
    float* to = out.row<float>(r);
    const float* from = x.row<float>(r);
    for (int64_t c = 0; c < x.cols; ++c) {
      const float kept = Dropout::keeps(dropout.key, uint64_t(r * x.cols + c), threshold) ? from[c] * factor : 0;
      to[c] = add ? to[c] + kept : kept;
    }
  });
}

void CpuDevice::doAddOuter(View out, ConstView y, ConstView x, float scale) {
  products_.run(onHost(out), {onHost(y), true}, {onHost(x), true}, scale, true);
}

void CpuDevice::doGegluGrad(View gateView, View upView, ConstView dView) {
  const HostView gate = onHost(gateView), up = onHost(upView);
  const ConstHostView d = onHost(dView);
  forRows(gate.rows, gate.cols,
          [&](int64_t r) { kernels_.geluMulGrad(gate.row<float>(r), up.row<float>(r), d.row<float>(r), gate.cols); });
}

void CpuDevice::doGeluGrad(View dView, ConstView xView) {
  const HostView d = onHost(dView);
  const ConstHostView x = onHost(xView);
  forRows(d.rows, d.cols, [&](int64_t r) { kernels_.geluGrad(d.row<float>(r), x.row<float>(r), d.cols); });
}

void CpuDevice::doRmsNormGrad(View dxView, ConstView dyView, ConstView xView, ConstView weight, float eps, bool add) {
  const HostView dx = onHost(dxView);
  const ConstHostView dy = onHost(dyView), x = onHost(xView);
  const float* factors = valuesOf(weight);
  forRows(x.rows, x.cols, [&](int64_t r) {
    kernels_.rmsNormGrad(dx.row<float>(r), dy.row<float>(r), x.row<float>(r), factors, eps, add, x.cols);
  });
}

void CpuDevice::doLayerNormGrad(View dxView, ConstView dyView, ConstView xView, ConstView weight, float eps, bool add) {
  const HostView dx = onHost(dxView);
  const ConstHostView dy = onHost(dyView), x = onHost(xView);
  const float* factors = valuesOf(weight);
  forRows(x.rows, x.cols, [&](int64_t r) {
    kernels_.layerNormGrad(dx.row<float>(r), dy.row<float>(r), x.row<float>(r), factors, eps, add, x.cols);
  });
}

// The rotation back.
void CpuDevice::doRopeGrad(View dView, ConstView positionView, int64_t headDim, float theta) {
  const HostView d = onHost(dView);
  const ConstHostView positions = onHost(positionView);
  const int64_t half = headDim / 2;
  const float* angles = ropeAngles(lastPosition(positions) + 1, headDim, theta);
  forRows(d.rows, d.cols, [&](int64_t r) {
    const float *cosines = angles + *positions.row<int32_t>(r) * headDim, *sines = cosines + half;
    std::vector<float> back(sines, sines + half);
    kernels_.scale(back.data(), -1, half);
    for (int64_t c = 0; c < d.cols; c += headDim) kernels_.rope(d.row<float>(r) + c, cosines, back.data(), half);
  });
}

void CpuDevice::doAttentionGrad(const AttentionGrad& job) {
  attentionBackward_.run({onHost(job.dq), onHost(job.dk), onHost(job.dv), onHost(job.dout), onHost(job.q),
                          onHost(job.k), onHost(job.v), job.heads, job.kvHeads, job.mask, job.scale, job.softcap});
}

void CpuDevice::doSoftmaxLoss(View lossView, View logitView, ConstView targetView, float cap) {
  const HostView losses = onHost(lossView), logits = onHost(logitView);
  const ConstHostView targets = onHost(targetView);
  forRows(logits.rows, logits.cols, [&](int64_t r) {
    float *z = logits.row<float>(r), *target = z + *targets.row<int32_t>(r);
    const float sum = kernels_.logSumExp(z, logits.cols), slope = cap > 0 ? 1 - (*target / cap) * (*target / cap) : 1;
    *losses.row<float>(r) = sum - *target;
    kernels_.logSumExpGrad(z, sum, 1, cap, logits.cols);
    *target -= slope;
  });
}

}  // namespace pg
