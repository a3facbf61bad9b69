// The ops of training, plain: every sum has one thread or one block and a fixed order.
#include "gpu/kernels/common.h"

KERNELS_BEGIN

CONSTANT uint32_t kGradThreads = 128;

// d gelu_tanh(x) / dx
__device__ inline float geluSlope(float x) {
  constexpr float kRoot = 0.7978845608028654f, kCubic = 0.044715f;
  const float t = tanhf(kRoot * (x + kCubic * x * x * x));
  return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * kRoot * (1.0f + 3.0f * kCubic * x * x);
}

// Of gelu(gate) * up: x is gate, y up, z the product's gradient.
KERNEL(256, geglu_grad, (RowArgs, float* gate, float* up, const float* d)) {
  for (EachValue i(PLACE, a.rows, a.cols); i.more(); i.next()) {
    GLOBAL float &g = gate[i.r * a.xStride + i.c], &u = up[i.r * a.yStride + i.c];
    const float slope = geluSlope(g), value = geluTanh(g), by = d[i.r * a.zStride + i.c];
    g = by * u * slope;
    u = by * value;
  }
}

KERNEL(256, gelu_grad, (RowArgs, float* d, const float* x)) {
  for (EachValue i(PLACE, a.rows, a.cols); i.more(); i.next())
    d[i.r * a.xStride + i.c] *= geluSlope(x[i.r * a.yStride + i.c]);
}

// Metal has no suffix for constants of 64 bits.
__device__ inline uint64_t joined(uint32_t high, uint32_t low) { return (uint64_t(high) << 32) | low; }

// splitmix64, as base/random_bits.h has it: its upper half
__device__ inline uint32_t randomWord(uint64_t key, uint64_t place) {
  uint64_t z = key + joined(0x9e3779b9u, 0x7f4a7c15u) * (place + 1);
  z = (z ^ (z >> 30)) * joined(0xbf58476du, 0x1ce4e5b9u);
  z = (z ^ (z >> 27)) * joined(0x94d049bbu, 0x133111ebu);
  return uint32_t((z ^ (z >> 31)) >> 32);
}

KERNEL(256, dropout, (DropoutArgs, float* out, const float* x)) {
  for (EachValue i(PLACE, a.rows, a.cols); i.more(); i.next()) {
    const bool keeps = randomWord(a.key, uint64_t(i.r) * a.cols + i.c) >= a.threshold;
    const float kept = keeps ? x[i.r * a.xStride + i.c] * a.factor : 0.0f;
    GLOBAL float& to = out[i.r * a.outStride + i.c];
    to = a.add ? to + kept : kept;
  }
}

// out += y^T x * scale
KERNEL(256, add_outer, (OuterArgs, float* out, const float* y, const float* x)) {
  for (EachValue v(PLACE, a.rows, a.cols); v.more(); v.next()) {
    float sum = 0;
    for (uint32_t i = 0; i < a.m; ++i) sum = fmaf(y[size_t(i) * a.yStride + v.r], x[size_t(i) * a.xStride + v.c], sum);
    out[v.r * a.outStride + v.c] += sum * a.scale;
  }
}

// ---- attention: of one KV head and the query heads that share it ----

struct SeenRange {
  int32_t first, end;
  __device__ SeenRange(ARGS AttentionGradArgs& a, int32_t i) {
    const bool inPrefix = i < a.prefix, wide = inPrefix && !a.windowInPrefix;
    first = a.window > 0 && !wide && i >= a.window ? i - a.window + 1 : 0;
    end = inPrefix ? a.prefix : i + 1;
    if (end > int32_t(a.n)) end = int32_t(a.n);
  }
};

// block = (query row i, head of the group): weights p[j] and the gradients of the scores ds[j], then dq.
// p, ds: [group][n][n], of which row i is written from the first to the last key that it sees.
KERNEL(kGradThreads, attention_grad_rows,
       (AttentionGradArgs, float* p, float* ds, float* dq, const float* dout, const float* q, const float* k,
        const float* v)) {
  TG_ARRAY(float, part, kGradThreads / kWarp);
  const Place at = PLACE;
  const uint32_t i = at.x, g = at.y, head = a.firstHead + g, d = a.headDim;
  const SeenRange seen(a, int32_t(i));
  GLOBAL const float *qi = q + size_t(i) * a.qStride + head * d, *di = dout + size_t(i) * a.doutStride + head * d;
  GLOBAL float *pi = p + (size_t(g) * a.n + i) * a.n, *si = ds + (size_t(g) * a.n + i) * a.n;

  float top = -INFINITY;
  for (int32_t j = seen.first + int32_t(at.index); j < seen.end; j += kGradThreads) {
    GLOBAL const float *kj = k + size_t(j) * a.kStride + a.kvHead * d, *vj = v + size_t(j) * a.vStride + a.kvHead * d;
    float score = 0, back = 0;
    for (uint32_t c = 0; c < d; ++c) score = fmaf(qi[c], kj[c], score), back = fmaf(di[c], vj[c], back);
    score *= a.scale;
    if (a.softcap > 0) score = a.softcap * tanhf(score / a.softcap);
    pi[j] = score;
    si[j] = back;
    top = fmaxf(top, score);
  }
  top = blockMax<kGradThreads>(at, top, part);
  float sum = 0, along = 0;
  for (int32_t j = seen.first + int32_t(at.index); j < seen.end; j += kGradThreads) {
    const float e = expf(pi[j] - top);
    sum += e;
    along = fmaf(e, si[j], along);
  }
  sum = blockSum<kGradThreads>(at, sum, part);
  along = blockSum<kGradThreads>(at, along, part) / sum;
  for (int32_t j = seen.first + int32_t(at.index); j < seen.end; j += kGradThreads) {
    const float capped = pi[j], weight = expf(capped - top) / sum;
    const float slope = a.softcap > 0 ? 1.0f - (capped / a.softcap) * (capped / a.softcap) : 1.0f;
    si[j] = weight * (si[j] - along) * slope * a.scale;
    pi[j] = weight;
  }
  groupBarrierGlobal();   // the row is complete
  for (uint32_t c = at.index; c < d; c += kGradThreads) {
    float to = 0;
    for (int32_t j = seen.first; j < seen.end; ++j) to = fmaf(si[j], k[size_t(j) * a.kStride + a.kvHead * d + c], to);
    dq[size_t(i) * a.dqStride + head * d + c] = to;
  }
}

// block = (key j): dk and dv from all rows that see it, heads in order
KERNEL(kGradThreads, attention_grad_keys,
       (AttentionGradArgs, float* dk, float* dv, const float* p, const float* ds, const float* dout,
        const float* q)) {
  const Place at = PLACE;
  const uint32_t j = at.x, d = a.headDim;
  for (uint32_t c = at.index; c < d; c += kGradThreads) {
    float toKey = 0, toValue = 0;
    for (uint32_t g = 0; g < a.group; ++g)
      for (uint32_t i = 0; i < a.n; ++i) {
        const SeenRange seen(a, int32_t(i));
        if (int32_t(j) < seen.first || int32_t(j) >= seen.end) continue;
        const size_t at = (size_t(g) * a.n + i) * a.n + j, column = (a.firstHead + g) * d + c;
        toKey = fmaf(ds[at], q[size_t(i) * a.qStride + column], toKey);
        toValue = fmaf(p[at], dout[size_t(i) * a.doutStride + column], toValue);
      }
    dk[size_t(j) * a.dkStride + a.kvHead * d + c] = toKey;
    dv[size_t(j) * a.dvStride + a.kvHead * d + c] = toValue;
  }
}

// block = a row: its loss, and logits become their gradient; number is the cap
KERNEL(256, softmax_loss, (RowArgs, float* losses, float* logits, const int32_t* targets)) {
  TG_ARRAY(float, part, 256 / kWarp);
  const Place at = PLACE;
  GLOBAL float* z = logits + size_t(at.x) * a.yStride;
  const uint32_t target = uint32_t(targets[at.x]);
  float top = -INFINITY, sum = 0;
  for (uint32_t c = at.index; c < a.cols; c += 256) top = fmaxf(top, z[c]);
  top = blockMax<256>(at, top, part);
  for (uint32_t c = at.index; c < a.cols; c += 256) sum += expf(z[c] - top);
  sum = blockSum<256>(at, sum, part);
  const float right = z[target];
  groupBarrierGlobal();   // all have read it
  if (at.index == 0) losses[size_t(at.x) * a.xStride] = top + logf(sum) - right;
  for (uint32_t c = at.index; c < a.cols; c += 256) {
    const float slope = a.number > 0 ? 1.0f - (z[c] / a.number) * (z[c] / a.number) : 1.0f;
    z[c] = (expf(z[c] - top) / sum - (c == target ? 1.0f : 0.0f)) * slope;
  }
}

KERNELS_END
