#include "device/device.h"

namespace pg {
namespace {

void require(bool ok, const char* op, const char* what) {
  if (!ok) fail(Code::internal, op, ": ", what);
}

void requireType(const char* op, ConstView a, DType type) {
  require(bool(a) || a.rows == 0, op, "a view has no memory");
  require(a.type == type, op, type == DType::f32 ? "expects f32" : "expects i32");
}

void requireF32(const char* op, ConstView a) { requireType(op, a, DType::f32); }

void requireSame(const char* op, ConstView a, ConstView b) {
  requireF32(op, a);
  requireF32(op, b);
  require(a.rows == b.rows && a.cols == b.cols, op, "shapes differ");
}

// One value for each column of x.
void requireVector(const char* op, ConstView vector, ConstView x) {
  requireF32(op, vector);
  require(vector.rows == 1 && vector.cols == x.cols, op, "the factors do not fit the columns");
}

// One whole number for each row of x.
void requireNumbers(const char* op, ConstView numbers, ConstView x) {
  requireType(op, numbers, DType::i32);
  require(numbers.rows == x.rows && numbers.cols == 1, op, "expects one number a row");
}

void requireProduct(const char* op, View out, ConstView x, const Linear& linear) {
  requireF32(op, out);
  requireF32(op, x);
  require(bool(linear.weight), op, "the weight has not been placed");
  require(x.cols == linear.in(), op, "x is not as wide as the weight");
  require(out.cols == linear.out() && out.rows == x.rows, op, "out has another shape than the product");
  if (linear.bias) requireVector(op, linear.bias, out);
}

void requireCache(const char* op, const KvView& kv, int64_t layer) {
  require(layer >= 0 && layer < kv.layout->layers, op, "the cache has no such layer");
  require(kv.pages.type == DType::i64 && kv.pages.cols == 1 && kv.pages.rows * kPageTokens >= kv.tokens, op,
          "the page table is too short");
}

}  // namespace

Buffer Device::allocate(size_t bytes) {
  if (tap_) tap_->allocate(bytes);
  return bytes > 0 ? doAllocate(bytes) : Buffer();
}

std::vector<Buffer> Device::place(std::span<const Placement> weights) {
  for (const Placement& weight : weights)
    require(weight.to && weight.host, "place", "a weight has no bytes or no view");
  return doPlace(weights);
}

void Device::matmul(ConstView x, std::span<const MatmulJob> jobs) {
  for (const MatmulJob& job : jobs) {
    requireProduct("matmul", job.out, x, *job.linear);
    require(job.epilogue != Epilogue::geglu, "matmul", "geglu is an op of its own");
  }
  if (jobs.empty() || x.rows == 0) return;
  if (tap_) {
    std::vector<const Linear*> linears;
    for (const MatmulJob& job : jobs) linears.push_back(job.linear);
    tap_->products(*this, x, linears);
    for (const MatmulJob& job : jobs) tap_->op("matmul", job.out);
  }
  doMatmul(x, jobs);
}

void Device::geglu(View out, ConstView x, const Linear& gate, const Linear& up) {
  requireProduct("geglu", out, x, gate);
  requireProduct("geglu", out, x, up);
  if (x.rows == 0) return;
  if (tap_) {
    const Linear* const linears[] = {&gate, &up};
    tap_->products(*this, x, linears);
  }
  tell("geglu", out);
  doGeglu(out, x, gate, up);
}

void Device::gelu(View gate, ConstView up) {
  requireF32("gelu", gate);
  if (up) requireSame("gelu", gate, up);
  tell("gelu", gate);
  doGelu(gate, up);
}

void Device::embed(View out, ConstView table, ConstView ids, float scale) {
  requireF32("embed", out);
  requireNumbers("embed", ids, out);
  require(table && out.cols == table.cols, "embed", "out is not as wide as the table");
  tell("embed", out);
  doEmbed(out, table, ids, scale);
}

void Device::rmsNorm(View out, ConstView x, ConstView weight, float eps, bool add) {
  requireSame("rmsNorm", out, x);
  requireVector("rmsNorm", weight, x);
  tell("rmsNorm", out);
  doRmsNorm(out, x, weight, eps, add);
}

void Device::layerNorm(View out, ConstView x, ConstView weight, ConstView bias, float eps) {
  requireSame("layerNorm", out, x);
  requireVector("layerNorm", weight, x);
  requireVector("layerNorm", bias, x);
  tell("layerNorm", out);
  doLayerNorm(out, x, weight, bias, eps);
}

void Device::rope(View x, ConstView positions, int64_t headDim, float theta) {
  requireF32("rope", x);
  requireNumbers("rope", positions, x);
  require(headDim > 0 && headDim % 2 == 0 && x.cols % headDim == 0, "rope", "the head size does not fit");
  if (x.rows == 0) return;
  tell("rope", x);
  doRope(x, positions, headDim, theta);
}

void Device::storeKv(const KvView& kv, int64_t layer, ConstView k, ConstView v, ConstView positions) {
  requireSame("storeKv", k, v);
  requireNumbers("storeKv", positions, k);
  requireCache("storeKv", kv, layer);
  require(k.cols == kv.layout->kvHeads * kv.layout->headDim, "storeKv", "k has another shape than the cache");
  tell("storeKv", {});
  doStoreKv(kv, layer, k, v, positions);
}

void Device::attention(std::span<const AttentionJob> jobs, const AttentionParams& params) {
  for (const AttentionJob& job : jobs) {
    requireSame("attention", job.out, job.q);
    requireNumbers("attention", job.positions, job.q);
    requireCache("attention", job.kv, params.layer);
    const KvLayout& layout = *job.kv.layout;
    require(job.q.cols % (layout.kvHeads * layout.headDim) == 0, "attention", "q does not fit the cache");
    require(job.kv.layout == jobs.front().kv.layout && job.q.cols == jobs.front().q.cols, "attention",
            "jobs are of different models");
    tell("attention", job.out);
  }
  if (!jobs.empty()) doAttention(jobs, params);
}

void Device::denseAttention(View out, ConstView q, ConstView k, ConstView v, int64_t heads, float scale,
                            Precision precision) {
  requireSame("denseAttention", out, q);
  requireSame("denseAttention", k, v);
  require(q.cols == k.cols && q.cols % heads == 0, "denseAttention", "widths do not fit the heads");
  tell("denseAttention", out);
  doDenseAttention(out, q, k, v, heads, scale, precision);
}

void Device::add(View x, ConstView y) {
  requireF32("add", x);
  requireF32("add", y);
  require(y.rows > 0 && x.rows % y.rows == 0 && x.cols == y.cols, "add", "shapes do not fit");
  tell("add", x);
  doAdd(x, y);
}

void Device::softcap(View x, float cap) {
  requireF32("softcap", x);
  tell("softcap", x);
  doSoftcap(x, cap);
}

void Device::argmax(View ids, ConstView x) {
  requireF32("argmax", x);
  requireNumbers("argmax", ids, x);
  tell("argmax", ids);
  doArgmax(ids, x);
}

void Device::topK(View ids, View values, ConstView x) {
  requireF32("topK", x);
  requireF32("topK", values);
  requireType("topK", ids, DType::i32);
  require(ids.rows == x.rows && values.rows == x.rows && ids.cols == values.cols, "topK", "shapes do not fit");
  require(ids.cols >= 1 && ids.cols <= limits().topK, "topK", "k is out of range");
  tell("topK", ids);
  doTopK(ids, values, x);
}

void Device::matmulGrad(View dx, ConstView dy, const Linear& linear, bool add) {
  requireF32("matmulGrad", dx);
  requireF32("matmulGrad", dy);
  require(bool(linear.weight), "matmulGrad", "the weight has not been placed");
  require(dy.cols == linear.out() && dx.cols == linear.in() && dx.rows == dy.rows, "matmulGrad", "shapes do not fit");
  if (dy.rows == 0) return;
  tell("matmulGrad", dx);
  doMatmulGrad(dx, dy, linear, add);
}

void Device::dropout(View out, ConstView x, const Dropout& dropout, bool add) {
  requireSame("dropout", out, x);
  require(dropout.rate >= 0 && dropout.rate < 1, "dropout", "the rate is not in 0..1");
  tell("dropout", out);
  doDropout(out, x, dropout, add);
}

void Device::addOuter(View out, ConstView y, ConstView x, float scale) {
  for (const ConstView view : {ConstView(out), y, x}) requireF32("addOuter", view);
  require(y.rows == x.rows && out.rows == y.cols && out.cols == x.cols, "addOuter", "shapes do not fit");
  if (y.rows == 0) return;
  tell("addOuter", out);
  doAddOuter(out, y, x, scale);
}

void Device::gegluGrad(View gate, View up, ConstView d) {
  requireSame("gegluGrad", gate, up);
  requireSame("gegluGrad", gate, d);
  tell("gegluGrad", gate);
  doGegluGrad(gate, up, d);
}

void Device::geluGrad(View d, ConstView x) {
  requireSame("geluGrad", d, x);
  tell("geluGrad", d);
  doGeluGrad(d, x);
}

void Device::rmsNormGrad(View dx, ConstView dy, ConstView x, ConstView weight, float eps, bool add) {
  requireSame("rmsNormGrad", dx, dy);
  requireSame("rmsNormGrad", dx, x);
  requireVector("rmsNormGrad", weight, x);
  tell("rmsNormGrad", dx);
  doRmsNormGrad(dx, dy, x, weight, eps, add);
}

void Device::layerNormGrad(View dx, ConstView dy, ConstView x, ConstView weight, float eps, bool add) {
  requireSame("layerNormGrad", dx, dy);
  requireSame("layerNormGrad", dx, x);
  requireVector("layerNormGrad", weight, x);
  tell("layerNormGrad", dx);
  doLayerNormGrad(dx, dy, x, weight, eps, add);
}

void Device::ropeGrad(View d, ConstView positions, int64_t headDim, float theta) {
  requireF32("ropeGrad", d);
  requireNumbers("ropeGrad", positions, d);
  require(headDim > 0 && headDim % 2 == 0 && d.cols % headDim == 0, "ropeGrad", "the head size does not fit");
  if (d.rows == 0) return;
  tell("ropeGrad", d);
  doRopeGrad(d, positions, headDim, theta);
}

void Device::attentionGrad(const AttentionGrad& job) {
  requireSame("attentionGrad", job.dq, job.q);
  requireSame("attentionGrad", job.dout, job.q);
  requireSame("attentionGrad", job.dk, job.k);
  requireSame("attentionGrad", job.dv, job.v);
  requireSame("attentionGrad", job.k, job.v);
  require(job.q.rows == job.k.rows && job.kvHeads > 0 && job.heads % job.kvHeads == 0 && job.q.cols % job.heads == 0 &&
              job.k.cols == job.q.cols / job.heads * job.kvHeads,
          "attentionGrad", "shapes do not fit the heads");
  if (job.q.rows == 0) return;
  tell("attentionGrad", job.dq);
  doAttentionGrad(job);
}

void Device::softmaxLoss(View losses, View logits, ConstView targets, float cap) {
  requireF32("softmaxLoss", losses);
  requireF32("softmaxLoss", logits);
  requireNumbers("softmaxLoss", targets, logits);
  require(losses.rows == logits.rows && losses.cols == 1, "softmaxLoss", "expects one loss a row");
  tell("softmaxLoss", logits);
  doSoftmaxLoss(losses, logits, targets, cap);
}

void Device::copy(View out, ConstView in) {
  require(out.type == in.type && out.rows == in.rows && out.cols == in.cols, "copy", "shapes differ");
  tell("copy", out);
  doCopy(out, in);
}

void Device::upload(View out, const void* data) {
  tell("upload", out);
  doUpload(out, data);
}

void Device::download(void* data, ConstView in) { doDownload(data, in); }

}  // namespace pg
