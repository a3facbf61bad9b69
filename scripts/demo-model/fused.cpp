// The decoder's element-wise work, each in one pass over memory: PyTorch without a compiler makes a pass an operation.
#include <ATen/Parallel.h>
#include <torch/extension.h>

#include <cmath>
#include <vector>

namespace {

using torch::Tensor;

constexpr float kRoot = 0.7978845608f, kCube = 0.044715f;  // of gelu's tanh form

template <class F>
void eachRow(int64_t rows, int64_t cols, const F& work) {
  at::parallel_for(0, rows, 1 + 65536 / cols, [&](int64_t from, int64_t to) {
    for (int64_t row = from; row < to; row++) work(row);
  });
}

Tensor normForward(const Tensor& x, const Tensor& weight, double eps, Tensor& scales) {
  const int64_t n = weight.size(0), rows = x.numel() / n;
  Tensor y = torch::empty_like(x);
  const float *in = x.data_ptr<float>(), *w = weight.data_ptr<float>();
  float *out = y.data_ptr<float>(), *r = scales.data_ptr<float>();
  eachRow(rows, n, [&](int64_t row) {
    const float* a = in + row * n;
    float* b = out + row * n;
    float sum = 0;
    for (int64_t i = 0; i < n; i++) sum += a[i] * a[i];
    const float scale = r[row] = 1 / std::sqrt(sum / n + static_cast<float>(eps));
    for (int64_t i = 0; i < n; i++) b[i] = a[i] * scale * (1 + w[i]);
  });
  return y;
}

std::vector<Tensor> norm(const Tensor& x, const Tensor& weight, double eps) {
  Tensor scales = torch::empty({x.numel() / weight.size(0)}, x.options());
  Tensor y = normForward(x, weight, eps, scales);
  return {y, scales};
}

std::vector<Tensor> normBack(const Tensor& grad, const Tensor& x, const Tensor& weight, const Tensor& scales) {
  const int64_t n = weight.size(0), rows = x.numel() / n;
  Tensor dx = torch::empty_like(x), dw = torch::zeros_like(weight);
  const float *g = grad.data_ptr<float>(), *in = x.data_ptr<float>(), *w = weight.data_ptr<float>();
  const float* r = scales.data_ptr<float>();
  float *out = dx.data_ptr<float>(), *sums = dw.data_ptr<float>();
  for (int64_t row = 0; row < rows; row++) {
    const float *a = in + row * n, *d = g + row * n;
    float* b = out + row * n;
    const float scale = r[row];
    float dot = 0;
    for (int64_t i = 0; i < n; i++) {
      dot += d[i] * (1 + w[i]) * a[i];
      sums[i] += d[i] * a[i] * scale;
    }
    const float back = dot * scale * scale / n;
    for (int64_t i = 0; i < n; i++) b[i] = scale * (d[i] * (1 + w[i]) - a[i] * back);
  }
  return {dx, dw};
}

/// gelu(a) * b
Tensor gate(const Tensor& a, const Tensor& b) {
  Tensor y = torch::empty_like(a);
  const float *p = a.data_ptr<float>(), *q = b.data_ptr<float>();
  float* out = y.data_ptr<float>();
  at::parallel_for(0, a.numel(), 65536, [&](int64_t from, int64_t to) {
#pragma omp simd
    for (int64_t i = from; i < to; i++) {
      const float x = p[i];
      out[i] = 0.5f * x * (1 + std::tanh(kRoot * (x + kCube * x * x * x))) * q[i];
    }
  });
  return y;
}

std::vector<Tensor> gateBack(const Tensor& grad, const Tensor& a, const Tensor& b) {
  Tensor da = torch::empty_like(a), db = torch::empty_like(b);
  const float *g = grad.data_ptr<float>(), *p = a.data_ptr<float>(), *q = b.data_ptr<float>();
  float *u = da.data_ptr<float>(), *v = db.data_ptr<float>();
  at::parallel_for(0, a.numel(), 65536, [&](int64_t from, int64_t to) {
#pragma omp simd
    for (int64_t i = from; i < to; i++) {
      const float x = p[i], t = std::tanh(kRoot * (x + kCube * x * x * x));
      const float slope = 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * kRoot * (1 + 3 * kCube * x * x);
      u[i] = g[i] * q[i] * slope;
      v[i] = g[i] * 0.5f * x * (1 + t);
    }
  });
  return {da, db};
}

/// Softmax of capped scores [b, heads, rows, keys], whose rows are `queries` queries of one head after those of
/// another; query i of sequence s sees its first max(start + i + 1, sees[s]) keys. Gives the weights and the tanh of
/// the scores.
std::vector<Tensor> attend(const Tensor& scores, const Tensor& sees, int64_t queries, int64_t start, double scale,
                           double cap) {
  const int64_t batch = scores.size(0), each = scores.size(1) * scores.size(2), keys = scores.size(3);
  Tensor weights = torch::empty_like(scores), bent = torch::empty_like(scores);
  const float* in = scores.data_ptr<float>();
  const int64_t* prefix = sees.data_ptr<int64_t>();
  float *out = weights.data_ptr<float>(), *tan = bent.data_ptr<float>();
  const float shrink = static_cast<float>(scale / cap), grow = static_cast<float>(cap);
  eachRow(batch * each, keys, [&](int64_t row) {
    const int64_t n = std::min(keys, std::max(start + row % queries + 1, prefix[row / each]));
    const float* a = in + row * keys;
    float *b = out + row * keys, *t = tan + row * keys;
    float most = -1;
    for (int64_t i = 0; i < n; i++) {
      t[i] = std::tanh(a[i] * shrink);
      most = std::max(most, t[i]);
    }
    float sum = 0;
    for (int64_t i = 0; i < n; i++) {
      b[i] = std::exp((t[i] - most) * grow);
      sum += b[i];
    }
    const float share = 1 / sum;
    for (int64_t i = 0; i < n; i++) b[i] *= share;
    for (int64_t i = n; i < keys; i++) b[i] = t[i] = 0;
  });
  return {weights, bent};
}

Tensor attendBack(const Tensor& grad, const Tensor& weights, const Tensor& bent, double scale) {
  const int64_t keys = grad.size(3), rows = grad.numel() / keys;
  Tensor back = torch::empty_like(grad);
  const float *g = grad.data_ptr<float>(), *w = weights.data_ptr<float>(), *t = bent.data_ptr<float>();
  float* out = back.data_ptr<float>();
  const float factor = static_cast<float>(scale);
  eachRow(rows, keys, [&](int64_t row) {
    const int64_t at = row * keys;
    float dot = 0;
    for (int64_t i = at; i < at + keys; i++) dot += g[i] * w[i];
    for (int64_t i = at; i < at + keys; i++) out[i] = w[i] * (g[i] - dot) * (1 - t[i] * t[i]) * factor;
  });
  return back;
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("norm", &norm);
  m.def("norm_back", &normBack);
  m.def("gate", &gate);
  m.def("gate_back", &gateBack);
  m.def("attend", &attend);
  m.def("attend_back", &attendBack);
}
