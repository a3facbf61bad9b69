// The ops of training, plain: every sum has one thread or one block and a fixed order.
#include "common.cuh"

namespace pg::gpu {

constexpr uint32_t kGradThreads = 128;

// d gelu_tanh(x) / dx
__device__ inline float geluSlope(float x) {
  constexpr float kRoot = 0.7978845608028654f, kCubic = 0.044715f;
  const float t = tanhf(kRoot * (x + kCubic * x * x * x));
  return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * kRoot * (1.0f + 3.0f * kCubic * x * x);
}

// Of gelu(gate) * up: x is gate, y up, z the product's gradient.
KERNEL(256, geglu_grad, (RowArgs a, float* gate, float* up, const float* d)) {
  const uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= a.cols) return;
  for (uint32_t r = blockIdx.y; r < a.rows; r += gridDim.y) {
    float &g = gate[size_t(r) * a.xStride + c], &u = up[size_t(r) * a.yStride + c];
    const float slope = geluSlope(g), value = geluTanh(g), by = d[size_t(r) * a.zStride + c];
    g = by * u * slope;
    u = by * value;
  }
}

KERNEL(256, gelu_grad, (RowArgs a, float* d, const float* x)) {
  const uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= a.cols) return;
  for (uint32_t r = blockIdx.y; r < a.rows; r += gridDim.y)
    d[size_t(r) * a.xStride + c] *= geluSlope(x[size_t(r) * a.yStride + c]);
}

// splitmix64, as base/random_bits.h has it
__device__ inline uint32_t randomWord(uint64_t key, uint64_t place) {
  uint64_t z = key + 0x9e3779b97f4a7c15ull * (place + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return uint32_t((z ^ (z >> 31)) >> 32);
}

KERNEL(256, dropout, (DropoutArgs a, float* out, const float* x)) {
  const uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= a.cols) return;
  for (uint32_t r = blockIdx.y; r < a.rows; r += gridDim.y) {
    const bool keeps = randomWord(a.key, uint64_t(r) * a.cols + c) >= a.threshold;
    const float kept = keeps ? x[size_t(r) * a.xStride + c] * a.factor : 0.0f;
    float& to = out[size_t(r) * a.outStride + c];
    to = a.add ? to + kept : kept;
  }
}

// out += y^T x * scale
KERNEL(256, add_outer, (OuterArgs a, float* out, const float* y, const float* x)) {
  const uint32_t c = blockIdx.x * blockDim.x + threadIdx.x;
  if (c >= a.cols) return;
  for (uint32_t r = blockIdx.y; r < a.rows; r += gridDim.y) {
    float sum = 0;
    for (uint32_t i = 0; i < a.m; ++i) sum = fmaf(y[size_t(i) * a.yStride + r], x[size_t(i) * a.xStride + c], sum);
    out[size_t(r) * a.outStride + c] += sum * a.scale;
  }
}

// ---- attention: of one KV head and the query heads that share it ----

struct SeenRange {
  int32_t first, end;
  __device__ SeenRange(const AttentionGradArgs& a, int32_t i) {
    const bool inPrefix = i < a.prefix, wide = inPrefix && !a.windowInPrefix;
    first = a.window > 0 && !wide && i >= a.window ? i - a.window + 1 : 0;
    end = inPrefix ? a.prefix : i + 1;
    if (end > int32_t(a.n)) end = int32_t(a.n);
  }
};

// block = (query row i, head of the group): weights p[j] and the gradients of the scores ds[j], then dq.
// p, ds: [group][n][n], of which row i is written from the first to the last key that it sees.
KERNEL(kGradThreads, attention_grad_rows,
       (AttentionGradArgs a, float* p, float* ds, float* dq, const float* dout, const float* q, const float* k,
        const float* v)) {
  TG_ARRAY(float, part, kGradThreads / kWarp);
  const uint32_t i = blockIdx.x, g = blockIdx.y, head = a.firstHead + g, d = a.headDim;
  const SeenRange seen(a, int32_t(i));
  const float *qi = q + size_t(i) * a.qStride + head * d, *di = dout + size_t(i) * a.doutStride + head * d;
  float *pi = p + (size_t(g) * a.n + i) * a.n, *si = ds + (size_t(g) * a.n + i) * a.n;

  float top = -INFINITY;
  for (int32_t j = seen.first + int32_t(threadIdx.x); j < seen.end; j += kGradThreads) {
    const float *kj = k + size_t(j) * a.kStride + a.kvHead * d, *vj = v + size_t(j) * a.vStride + a.kvHead * d;
    float score = 0, back = 0;
    for (uint32_t c = 0; c < d; ++c) score = fmaf(qi[c], kj[c], score), back = fmaf(di[c], vj[c], back);
    score *= a.scale;
    if (a.softcap > 0) score = a.softcap * tanhf(score / a.softcap);
    pi[j] = score;
    si[j] = back;
    top = fmaxf(top, score);
  }
  top = blockMax<kGradThreads>(top, part);
  float sum = 0, along = 0;
  for (int32_t j = seen.first + int32_t(threadIdx.x); j < seen.end; j += kGradThreads) {
    const float e = expf(pi[j] - top);
    sum += e;
    along = fmaf(e, si[j], along);
  }
  sum = blockSum<kGradThreads>(sum, part);
  along = blockSum<kGradThreads>(along, part) / sum;
  for (int32_t j = seen.first + int32_t(threadIdx.x); j < seen.end; j += kGradThreads) {
    const float capped = pi[j], weight = expf(capped - top) / sum;
    const float slope = a.softcap > 0 ? 1.0f - (capped / a.softcap) * (capped / a.softcap) : 1.0f;
    si[j] = weight * (si[j] - along) * slope * a.scale;
    pi[j] = weight;
  }
  __syncthreads();   // the row is complete
  for (uint32_t c = threadIdx.x; c < d; c += kGradThreads) {
    float to = 0;
    for (int32_t j = seen.first; j < seen.end; ++j) to = fmaf(si[j], k[size_t(j) * a.kStride + a.kvHead * d + c], to);
    dq[size_t(i) * a.dqStride + head * d + c] = to;
  }
}

// block = (key j): dk and dv from all rows that see it, heads in order
KERNEL(kGradThreads, attention_grad_keys,
       (AttentionGradArgs a, float* dk, float* dv, const float* p, const float* ds, const float* dout,
        const float* q)) {
  const uint32_t j = blockIdx.x, d = a.headDim;
  for (uint32_t c = threadIdx.x; c < d; c += kGradThreads) {
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
KERNEL(256, softmax_loss, (RowArgs a, float* losses, float* logits, const int32_t* targets)) {
  TG_ARRAY(float, part, 256 / kWarp);
  float* z = logits + size_t(blockIdx.x) * a.yStride;
  const uint32_t target = uint32_t(targets[blockIdx.x]);
  float top = -INFINITY, sum = 0;
  for (uint32_t c = threadIdx.x; c < a.cols; c += 256) top = fmaxf(top, z[c]);
  top = blockMax<256>(top, part);
  for (uint32_t c = threadIdx.x; c < a.cols; c += 256) sum += expf(z[c] - top);
  sum = blockSum<256>(sum, part);
  const float at = z[target];
  __syncthreads();   // all have read it
  if (threadIdx.x == 0) losses[size_t(blockIdx.x) * a.xStride] = top + logf(sum) - at;
  for (uint32_t c = threadIdx.x; c < a.cols; c += 256) {
    const float slope = a.number > 0 ? 1.0f - (z[c] / a.number) * (z[c] / a.number) : 1.0f;
    z[c] = (expf(z[c] - top) / sum - (c == target ? 1.0f : 0.0f)) * slope;
  }
}

}  // namespace pg::gpu
