#pragma once
// What the forward pass asks of the machine: memory and a short list of ops over row-major views. Rows are tokens.
//
// Whatever an op reads lies in the device's memory. The ops here check every shape once, tell the tap and call the
// device's own doX; below that nobody checks again.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/cancel.h"
#include "base/epilogue.h"
#include "base/error.h"
#include "base/host_view.h"
#include "base/mapped_file.h"
#include "device/attention_grad.h"
#include "device/dropout.h"
#include "device/tap.h"
#include "device/view.h"

namespace pg {

// What the model needs to know of a device to cut its work well.
struct DeviceLimits {
  int64_t stepRows = 1;    // in products of up to so many rows a row's numbers do not depend on the other rows
  int64_t blockRows = 1;   // rows that pass through wide layers together: more would only take more memory
  int64_t jobs = 1;        // products that one matmul takes
  int64_t topK = 1;        // largest k of topK
  // Rows of several sequences or pictures that may pass together, each of more than stepRows and at most blockRows: a
  // row's numbers are then what they are alone. 0: none may.
  int64_t jointRows = 0;
};

// A weight on its way to the device.
struct Placement {
  ConstHostView host;
  // Holds the bytes of `host` for as long as somebody keeps it; none: they may go when place() returns.
  std::shared_ptr<const MappedFile> file;
  bool manyRows = false;  // only ever meets many rows at once: a form that suits those alone may pay
  ConstView* to = nullptr;  // where its view goes
};

// How attention multiplies: in f32, or as the device is fastest with an error below a thousandth, which drowns in that
// of quantized weights. rounded: beside bf16 weights; a device that rounds what it multiplies with these may be fast.
enum class Precision { exact, rounded, fast };

// y = x W^T + bias. Views of the model's weights, never owned.
struct Linear {
  ConstView weight;  // [out, in], any type
  ConstView bias;  // [1, out] f32, or none

  // Of what is computed with such weights' products
  Precision precision() const {
    if (dtypeInfo(weight.type)->quantized) return Precision::fast;
    return weight.type == DType::bf16 ? Precision::rounded : Precision::exact;
  }
  int64_t out() const { return weight.rows; }
  int64_t in() const { return weight.cols; }
  // Outputs [begin, begin + count) alone.
  Linear rows(int64_t begin, int64_t count) const {
    return {weight.slice(begin, count), bias ? bias.columns(begin, count) : ConstView()};
  }
};

struct MatmulJob {
  View out;  // [m, linear.out] f32
  const Linear* linear;
  Epilogue epilogue = Epilogue::store;  // not geglu, which is an op of its own
};

// One sequence's cache: pages of kPageTokens tokens, each [layer][k, v][kvHead][token][headDim].
inline constexpr int64_t kPageTokens = 64;

struct KvLayout {
  int64_t layers = 0, kvHeads = 0, headDim = 0;
  DType type = DType::f16;  // f16, q8_0, f32

  size_t rowBytes() const { return bytesFor(type, headDim); }
  size_t headBytes() const { return rowBytes() * kPageTokens; }
  size_t pageBytes() const { return headBytes() * size_t(layers * 2 * kvHeads); }
  // First token of a head's K (value = 0) or V (value = 1) in a page; its tokens lie rowBytes() apart.
  size_t headOffset(int64_t layer, int64_t value, int64_t head) const {
    return headBytes() * size_t((layer * 2 + value) * kvHeads + head);
  }
};

struct KvView {
  const KvLayout* layout = nullptr;
  ConstView pages;  // [pages, 1] i64: the device's addresses of the pages
  int64_t tokens = 0;  // that have room, so larger than every position
};

// Attention of consecutive positions of one sequence over its cache.
struct AttentionJob {
  View out;  // [m, heads * headDim] f32
  ConstView q;  // the same shape, rotated
  KvView kv;
  ConstView positions;  // [m, 1] i32, one after the other
  AttentionMask mask;
};

// What all jobs of an attention have in common.
struct AttentionParams {
  int64_t layer = 0;
  float scale = 1, softcap = 0;  // scores become softcap * tanh(q k * scale / softcap); softcap 0 = off
  Precision precision = Precision::exact;
};

// What argmax and topK say of values that no choice can be made of.
inline constexpr int32_t kHoldsNan = -2;

class Device {
 public:
  virtual ~Device() = default;

  virtual const char* name() const = 0;  // "cpu"
  virtual std::string isa() const = 0;  // "avx512vnni", or the GPU's name
  virtual int threads() const { return 0; }
  virtual DeviceLimits limits() const = 0;
  // Reads its flag in long ops; a set flag may leave outputs unfinished, callers check it after the op.
  virtual void setCancel(const CancelFlag* flag) = 0;
  void setTap(Tap* tap) { tap_ = tap; }  // nullptr: none

  // Zeroed. Fails with outOfMemory.
  Buffer allocate(size_t bytes);
  // Brings weights to where the ops read them, once; nobody writes them afterwards. Rows can still be told apart (a
  // slice of such a view is a view of these rows). The memory is theirs as long as it is kept.
  std::vector<Buffer> place(std::span<const Placement> weights);

  // Ops that `body` calls may be gathered and run when it ends (a command buffer, a graph): in their order, so each
  // sees what those before it wrote. upload() and download() may come in between, but make a device wait. What they
  // use is not freed before the end.
  template <class Body>
  void submit(Body&& body) {
    if (submitting_) return body();
    doBegin();
    submitting_ = true;
    try {
      body();
    } catch (...) {
      submitting_ = false;
      doEnd(false);
      throw;
    }
    submitting_ = false;
    doEnd(true);
  }

  // Several products with the same x [m, k] f32 at once.
  void matmul(ConstView x, std::span<const MatmulJob> jobs);
  // out[m, ffn] = gelu_tanh(x gate^T) * (x up^T)
  void geglu(View out, ConstView x, const Linear& gate, const Linear& up);
  // gate = gelu_tanh(gate) * up; without up: gate = gelu_tanh(gate).
  void gelu(View gate, ConstView up = {});
  // out[i] = table[ids[i]] * scale; ids [m, 1] i32, all of them rows of the table.
  void embed(View out, ConstView table, ConstView ids, float scale);
  // out = x / rms(x) * weight; add: out += that. weight [1, cols] is the full factor (GGUF stores Gemma's w + 1).
  void rmsNorm(View out, ConstView x, ConstView weight, float eps, bool add = false);
  void layerNorm(View out, ConstView x, ConstView weight, ConstView bias, float eps);
  // x[m, heads * headDim]: half-split rotation of each head by the row's position; positions [m, 1] i32.
  void rope(View x, ConstView positions, int64_t headDim, float theta);
  // k, v [m, kvHeads * headDim] f32 into the cache at positions [m, 1] i32.
  void storeKv(const KvView& kv, int64_t layer, ConstView k, ConstView v, ConstView positions);
  // softmax(softcap(q k^T * scale)) v per head.
  void attention(std::span<const AttentionJob> jobs, const AttentionParams& params);
  // Every row sees every row: q, k, v, out [m, heads * headDim] f32.
  void denseAttention(View out, ConstView q, ConstView k, ConstView v, int64_t heads, float scale, Precision precision);
  // x += y, rows of y repeating when it has fewer (m is a multiple of y.rows).
  void add(View x, ConstView y);
  // x = cap * tanh(x / cap)
  void softcap(View x, float cap);
  // ids [m, 1] i32: of each row of x the column of the largest value, the first of equals; -1 where none is larger than
  // minus infinity, kHoldsNan where one is NaN.
  void argmax(View ids, ConstView x);
  // ids [m, k] i32, values [m, k] f32: of each row of x the k largest values, best first, the first column first among
  // equals; ids are -1 behind the last that is larger than minus infinity, and the first is kHoldsNan where one is NaN.
  void topK(View ids, View values, ConstView x);

  // --- gradients, for training: d of something is the loss's gradient with respect to it ---
  // dx = dy W, or dx += that; in f32 whatever the weight's type
  void matmulGrad(View dx, ConstView dy, const Linear& linear, bool add = false);
  // out = x, or out += x, with dropout; out may be x
  void dropout(View out, ConstView x, const Dropout& dropout, bool add = false);
  // out += y^T x * scale; y [m, out.rows], x [m, out.cols]
  void addOuter(View out, ConstView y, ConstView x, float scale);
  // Of gelu(gate) * up: gate and up become their gradients, given that of the product.
  void gegluGrad(View gate, View up, ConstView d);
  void geluGrad(View d, ConstView x);  // d *= gelu'(x)
  // dx = the gradient through the norm, or dx += that; dx may be dy
  void rmsNormGrad(View dx, ConstView dy, ConstView x, ConstView weight, float eps, bool add = false);
  void layerNormGrad(View dx, ConstView dy, ConstView x, ConstView weight, float eps, bool add = false);
  void ropeGrad(View d, ConstView positions, int64_t headDim, float theta);
  void attentionGrad(const AttentionGrad& job);
  // losses [m, 1]: -log softmax(logits)[target]; logits, capped already where cap > 0, become the gradient of the
  // losses' sum with respect to what they were before the cap. targets [m, 1] i32, all of them columns.
  void softmaxLoss(View losses, View logits, ConstView targets, float cap);

  void copy(View out, ConstView in);  // the same shape and type
  void upload(View out, const void* data);  // rows packed; the data may go when it returns
  void download(void* data, ConstView in);

 protected:
  virtual Buffer doAllocate(size_t bytes) = 0;
  virtual std::vector<Buffer> doPlace(std::span<const Placement> weights) = 0;
  virtual void doBegin() = 0;
  virtual void doEnd(bool complete) = 0;  // false: what was gathered is not wanted any more
  virtual void doMatmul(ConstView x, std::span<const MatmulJob> jobs) = 0;
  virtual void doGeglu(View out, ConstView x, const Linear& gate, const Linear& up) = 0;
  virtual void doGelu(View gate, ConstView up) = 0;
  virtual void doEmbed(View out, ConstView table, ConstView ids, float scale) = 0;
  virtual void doRmsNorm(View out, ConstView x, ConstView weight, float eps, bool add) = 0;
  virtual void doLayerNorm(View out, ConstView x, ConstView weight, ConstView bias, float eps) = 0;
  virtual void doRope(View x, ConstView positions, int64_t headDim, float theta) = 0;
  virtual void doStoreKv(const KvView& kv, int64_t layer, ConstView k, ConstView v, ConstView positions) = 0;
  virtual void doAttention(std::span<const AttentionJob> jobs, const AttentionParams& params) = 0;
  virtual void doDenseAttention(View out, ConstView q, ConstView k, ConstView v, int64_t heads, float scale,
                                Precision precision) = 0;
  virtual void doAdd(View x, ConstView y) = 0;
  virtual void doSoftcap(View x, float cap) = 0;
  virtual void doArgmax(View ids, ConstView x) = 0;
  virtual void doTopK(View ids, View values, ConstView x) = 0;
  virtual void doMatmulGrad(View dx, ConstView dy, const Linear& linear, bool add) = 0;
  virtual void doDropout(View out, ConstView x, const Dropout& dropout, bool add) = 0;
  virtual void doAddOuter(View out, ConstView y, ConstView x, float scale) = 0;
  virtual void doGegluGrad(View gate, View up, ConstView d) = 0;
  virtual void doGeluGrad(View d, ConstView x) = 0;
  virtual void doRmsNormGrad(View dx, ConstView dy, ConstView x, ConstView weight, float eps, bool add) = 0;
  virtual void doLayerNormGrad(View dx, ConstView dy, ConstView x, ConstView weight, float eps, bool add) = 0;
  virtual void doRopeGrad(View d, ConstView positions, int64_t headDim, float theta) = 0;
  virtual void doAttentionGrad(const AttentionGrad& job) = 0;
  virtual void doSoftmaxLoss(View losses, View logits, ConstView targets, float cap) = 0;
  virtual void doCopy(View out, ConstView in) = 0;
  virtual void doUpload(View out, const void* data) = 0;
  virtual void doDownload(void* data, ConstView in) = 0;

 private:
  void tell(const char* op, ConstView out) {
    if (tap_) tap_->op(op, out);
  }

  Tap* tap_ = nullptr;
  bool submitting_ = false;
};

}  // namespace pg
