#include "cpu/gemm.h"

#include "format/quantize.h"

namespace pg {
namespace {

// Weight rows unpacked at a time: 16 rows of 2304 are 147 KB, half of a small L2.
constexpr int64_t kPanelRows = 16;

void storeRow(float* out, const float* y, int64_t n, const float* bias, Epilogue epilogue, const Kernels& kernels) {
  float row[kPanelRows];
  for (int64_t i = 0; i < n; ++i) row[i] = bias ? y[i] + bias[i] : y[i];
  if (epilogue == Epilogue::gelu) kernels.gelu(row, n);
  for (int64_t i = 0; i < n; ++i) out[i] = epilogue == Epilogue::add ? out[i] + row[i] : row[i];
}

}  // namespace

const float* Gemm::panel(ConstView w, int64_t begin, int64_t count, std::vector<float>& to) const {
  if (w.type == DType::f32) return w.row<float>(begin);
  to.resize(size_t(kPanelRows * w.cols));
  for (int64_t r = 0; r < count; ++r) dequantizeRow(w.type, w.row<void>(begin + r), to.data() + r * w.cols, w.cols);
  return to.data();
}

void Gemm::matmul(ConstView x, std::span<const MatmulJob> jobs) {
  for (const MatmulJob& job : jobs) {
    const ConstView w = job.linear->weight;
    const float* bias = job.linear->bias;
    pool_.forRange(w.rows, kPanelRows, [&](int64_t begin, int64_t end, int worker) {
      if (cancelled()) return;
      const float* rows = panel(w, begin, end - begin, scratch_[size_t(worker)].a);
      for (int64_t m = 0; m < x.rows; ++m) {
        float y[kPanelRows];
        for (int64_t r = begin; r < end; ++r) y[r - begin] = kernels_.dot(x.row<float>(m), rows + (r - begin) * w.cols, w.cols);
        storeRow(job.out.row<float>(m) + begin, y, end - begin, bias ? bias + begin : nullptr, job.epilogue, kernels_);
      }
    });
  }
}

void Gemm::geglu(View out, ConstView x, const Linear& gate, const Linear& up) {
  pool_.forRange(out.cols, kPanelRows, [&](int64_t begin, int64_t end, int worker) {
    if (cancelled()) return;
    Scratch& scratch = scratch_[size_t(worker)];
    const float* gateRows = panel(gate.weight, begin, end - begin, scratch.a);
    const float* upRows = panel(up.weight, begin, end - begin, scratch.b);
    for (int64_t m = 0; m < x.rows; ++m) {
      float g[kPanelRows], u[kPanelRows];
      for (int64_t r = 0; r < end - begin; ++r) {
        g[r] = kernels_.dot(x.row<float>(m), gateRows + r * x.cols, x.cols);
        u[r] = kernels_.dot(x.row<float>(m), upRows + r * x.cols, x.cols);
      }
      kernels_.geluMul(out.row<float>(m) + begin, g, u, end - begin);
    }
  });
}

}  // namespace pg
