#include "cpu/attention_grad.h"

#include <algorithm>
#include <cmath>

namespace pg {
namespace {

constexpr int64_t kQueryRows = 64;

// Columns of a matrix: one head.
template <class View>
View columnsOf(const View& all, int64_t first, int64_t count) {
  View part = all;
  part.data += size_t(first) * sizeof(float);
  part.cols = count;
  return part;
}

HostView dense(float* data, int64_t rows, int64_t cols) {
  return {reinterpret_cast<uint8_t*>(data), DType::f32, rows, cols};
}

}  // namespace

// One head's columns of everything; dk and dv are its own.
struct AttentionBackward::Head {
  HostView dq, dk, dv;
  ConstHostView dout, q, k, v;
  const HostAttentionGrad& job;
};

void AttentionBackward::run(const HostAttentionGrad& job) {
  const int64_t d = job.headDim(), n = job.q.rows, shared = job.heads / job.kvHeads;
  float* partial = partial_.get<float>(size_t(2 * job.heads * n * d));
  const auto part = [&](int64_t head, int64_t value) { return dense(partial + (head * 2 + value) * n * d, n, d); };
  pool_.forRange(job.heads, 1, [&](int64_t h, int64_t, int worker) {
    const int64_t kv = h / shared * d;
    head({columnsOf(job.dq, h * d, d), part(h, 0), part(h, 1), columnsOf(job.dout, h * d, d),
          columnsOf(job.q, h * d, d), columnsOf(job.k, kv, d), columnsOf(job.v, kv, d), job},
         workers_[size_t(worker)]);
  });
  pool_.forRange(n, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t h = 0; h < job.heads; ++h)
        for (int64_t value = 0; value < 2; ++value) {
          float* to = (value ? job.dv : job.dk).row<float>(row) + h / shared * d;
          const float* from = part(h, value).row<float>(row);
          if (h % shared == 0) std::copy_n(from, d, to);
          else kernels_.add(to, from, d);
        }
  });
}

void AttentionBackward::head(const Head& head, Worker& worker) const {
  for (const HostView& sums : {head.dk, head.dv}) std::fill_n(sums.row<float>(0), sums.rows * sums.cols, 0.0f);
  for (int64_t row = 0; row < head.q.rows; row += kQueryRows) {
    if (cancel_ && cancel_->set.load(std::memory_order_relaxed)) return;
    rows(head, row, std::min(kQueryRows, head.q.rows - row), worker);
  }
}

// Query rows [row, row + count) and all keys that one of them sees
void AttentionBackward::rows(const Head& head, int64_t row, int64_t count, Worker& worker) const {
  const AttentionMask& mask = head.job.mask;
  const int64_t first = std::min(mask.first(row), mask.first(row + count - 1)), end = mask.end(row + count - 1);
  const int64_t keys = std::max(end, mask.end(row)) - first;
  const ConstHostView q = head.q.slice(row, count), dout = head.dout.slice(row, count);
  const ConstHostView k = head.k.slice(first, keys), v = head.v.slice(first, keys);
  const size_t size = size_t(count * keys);
  const HostView scores = dense(worker.scores.get<float>(size), count, keys);
  const HostView p = dense(worker.probabilities.get<float>(size), count, keys);
  const HostView d = dense(worker.gradients.get<float>(size), count, keys);
  products_.runHere(scores, {q}, {k}, 1, false, worker.products);
  products_.runHere(d, {dout}, {v}, 1, false, worker.products);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t from = mask.first(row + i) - first, n = mask.end(row + i) - first - from;
    float *pRow = p.row<float>(i), *dRow = d.row<float>(i);
    std::copy_n(scores.row<float>(i), keys, pRow);
    float top = -INFINITY, sum = 0;
    kernels_.softmaxStep(pRow + from, head.job.scale, head.job.softcap, &top, &sum, n);
    kernels_.scale(pRow + from, 1 / sum, n);
    kernels_.softmaxGrad(dRow + from, pRow + from, scores.row<float>(i) + from,
                         kernels_.dot(pRow + from, dRow + from, n), head.job.scale, head.job.softcap, n);
    for (float* unseen : {pRow, dRow}) {
      std::fill(unseen, unseen + from, 0.0f);
      std::fill(unseen + from + n, unseen + keys, 0.0f);
    }
  }
  products_.runHere(head.dv.slice(first, keys), {p, true}, {dout, true}, 1, true, worker.products);
  products_.runHere(head.dq.slice(row, count), {d}, {k, true}, 1, false, worker.products);
  products_.runHere(head.dk.slice(first, keys), {d, true}, {q, true}, 1, true, worker.products);
}

}  // namespace pg
