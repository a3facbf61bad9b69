#pragma once
// What the forward pass asks of the machine: buffers and a short list of ops over row-major views. Rows are tokens.
// A Device checks every dimension once per op; kernels below it know only pointers and sizes.
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "base/cancel.h"
#include "base/epilogue.h"
#include "base/error.h"
#include "base/view.h"

namespace pg {

class Device;

// Owned device memory.
class Buffer {
 public:
  Buffer() = default;
  Buffer(Device* device, uint8_t* data, size_t bytes) : device_(device), data_(data), bytes_(bytes) {}
  Buffer(Buffer&& o) noexcept { *this = std::move(o); }
  Buffer& operator=(Buffer&& o) noexcept;
  ~Buffer();
  uint8_t* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  Device* device_ = nullptr;
  uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

// How attention multiplies: in f32, or as the device is fastest with an error below a thousandth, which drowns in that
// of quantized weights.
enum class Precision { exact, fast };

// y = x W^T + bias. Views of the model's weights, never owned.
struct Linear {
  ConstView weight;             // [out, in], any type
  const float* bias = nullptr;  // [out] or none
  const uint8_t* packed = nullptr;  // the weight as Device::pack wrote it, or none
  // Of what is computed with such weights' products
  Precision precision() const { return dtypeInfo(weight.type)->quantized ? Precision::fast : Precision::exact; }
  int64_t out() const { return weight.rows; }
  int64_t in() const { return weight.cols; }
};

struct MatmulJob {
  View out;                     // [m, linear.out] f32
  const Linear* linear;
  Epilogue epilogue = Epilogue::store;   // not geglu, which is an op of its own
};

// One sequence's cache: pages of kPageTokens tokens, each [layer][k, v][kvHead][token][headDim].
inline constexpr int64_t kPageTokens = 64;

struct KvLayout {
  int64_t layers = 0, kvHeads = 0, headDim = 0;
  DType type = DType::f16;      // f16, q8_0, f32

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
  uint8_t* const* pages = nullptr;
};

// Which keys a query sees: always one contiguous range.
struct AttentionMask {
  int64_t prefix = 0;           // positions 0..prefix-1 see each other fully, later ones are causal
  int64_t window = 0;           // 0 = none; else only the last `window` positions, the query's own included
  bool windowInPrefix = false;  // the window also limits how far back prefix positions look

  int64_t first(int64_t position) const {
    if (window == 0 || (position < prefix && !windowInPrefix)) return 0;
    return position >= window ? position - window + 1 : 0;
  }
  int64_t end(int64_t position) const { return position < prefix ? prefix : position + 1; }
};

// Attention of consecutive positions of one sequence over its cache.
struct AttentionJob {
  View out;                     // [m, heads * headDim] f32
  ConstView q;                  // the same shape, rotated
  KvView kv;
  int64_t position = 0;         // of the first row
  AttentionMask mask;
};

class Device {
 public:
  virtual ~Device() = default;

  virtual const char* name() const = 0;    // "cpu"
  virtual std::string isa() const = 0;     // "avx512vnni", or the GPU's name
  virtual int threads() const { return 0; }

  // Zeroed. Fails with outOfMemory.
  virtual Buffer allocate(size_t bytes) = 0;

  // Reads its flag in long ops; a set flag may leave outputs unfinished, callers check it after the op.
  virtual void setCancel(const CancelFlag* flag) = 0;

  // Weights in the device's own form, as large as they are, for products of many rows: sets `packed` of those that
  // gain.
  virtual Buffer pack(std::span<Linear* const>) { return {}; }

  // Several products with the same x [m, k] f32 at once.
  virtual void matmul(ConstView x, std::span<const MatmulJob> jobs) = 0;
  // out[m, ffn] = gelu_tanh(x gate^T) * (x up^T)
  virtual void geglu(View out, ConstView x, const Linear& gate, const Linear& up) = 0;
  // out[i] = table[ids[i]] * scale
  virtual void embed(View out, ConstView table, std::span<const int32_t> ids, float scale) = 0;
  // out = x / rms(x) * weight; add: out += that. weight [cols] is the full factor (GGUF stores Gemma's w + 1).
  virtual void rmsNorm(View out, ConstView x, const float* weight, float eps, bool add = false) = 0;
  virtual void layerNorm(View out, ConstView x, const float* weight, const float* bias, float eps) = 0;
  // x[m, heads * headDim]: half-split rotation of each head by the row's position.
  virtual void rope(View x, std::span<const int64_t> positions, int64_t headDim, float theta) = 0;
  // k, v [m, kvHeads * headDim] f32 into the cache at consecutive positions.
  virtual void storeKv(const KvView& kv, int64_t layer, ConstView k, ConstView v, int64_t position) = 0;
  // softmax(softcap(q k^T * scale)) v per head; softcap 0 = off.
  virtual void attention(std::span<const AttentionJob> jobs, int64_t layer, float scale, float softcap,
                         Precision precision) = 0;
  // Every row sees every row: q, k, v, out [m, heads * headDim] f32.
  virtual void denseAttention(View out, ConstView q, ConstView k, ConstView v, int64_t heads, float scale,
                              Precision precision) = 0;
  // gate = gelu_tanh(gate) * up; without up: gate = gelu_tanh(gate). On the host unless the device has its own.
  virtual void gelu(View gate, ConstView up = {});
  // x += y, rows of y repeating when it has fewer (m is a multiple of y.rows).
  virtual void add(View x, ConstView y) = 0;
  // x = cap * tanh(x / cap)
  virtual void softcap(View x, float cap) = 0;

  virtual void copy(View out, ConstView in) = 0;         // the same shape and type
  virtual void upload(View out, const void* data) = 0;  // rows packed
  virtual void download(void* data, ConstView in) = 0;

 private:
  friend class Buffer;
  virtual void release(uint8_t* data, size_t bytes) noexcept = 0;
};

inline Buffer& Buffer::operator=(Buffer&& o) noexcept {
  std::swap(device_, o.device_);
  std::swap(data_, o.data_);
  std::swap(bytes_, o.bytes_);
  return *this;
}

inline Buffer::~Buffer() {
  if (data_) device_->release(data_, bytes_);
}

}  // namespace pg
