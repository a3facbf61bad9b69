#pragma once
// Tensors in a device's memory: the memory, an offset into it, a type and a shape. Row-major, outermost first. The host
// cannot follow them: upload() and download() are the way in and out.
#include <cassert>
#include <cstdint>
#include <memory>

#include "base/dtype.h"

namespace pg {

// A piece of a device's memory. Each device derives its own kind, with what it needs to find it again (a buffer object,
// a mapped file) and to give it back.
struct Memory {
  Memory(uint64_t at, size_t size) : address(at), bytes(size) {}
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  virtual ~Memory() = default;

  const uint64_t address;  // of the first byte, in the device's address space
  const size_t bytes;
};

// Rows of `cols` values, `stride` bytes apart, from byte `offset` of `memory` on.
template <bool kConst>
struct BasicView {
  const Memory* memory = nullptr;
  size_t offset = 0;
  DType type = DType::f32;
  int64_t rows = 0;
  int64_t cols = 0;
  size_t stride = 0;

  BasicView() = default;
  BasicView(const Memory* m, size_t o, DType t, int64_t r, int64_t c) : BasicView(m, o, t, r, c, bytesFor(t, c)) {}
  BasicView(const Memory* m, size_t o, DType t, int64_t r, int64_t c, size_t s)
      : memory(m), offset(o), type(t), rows(r), cols(c), stride(s) {}

  explicit operator bool() const { return memory != nullptr; }
  size_t bytes() const { return stride * size_t(rows); }
  uint64_t address() const { return memory->address + offset; }

  BasicView slice(int64_t begin, int64_t count) const {
    assert(begin >= 0 && count >= 0 && begin + count <= rows);
    return {memory, offset + stride * size_t(begin), type, count, cols, stride};
  }
  // Columns [begin, begin + count), both multiples of the type's block.
  BasicView columns(int64_t begin, int64_t count) const {
    assert(begin >= 0 && count >= 0 && begin + count <= cols);
    return {memory, offset + bytesFor(type, begin), type, rows, count, stride};
  }
  operator BasicView<true>() const
    requires(!kConst)
  {
    return {memory, offset, type, rows, cols, stride};
  }
};

using View = BasicView<false>;
using ConstView = BasicView<true>;

// Owns device memory.
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(std::unique_ptr<Memory> memory) : memory_(std::move(memory)) {}

  explicit operator bool() const { return memory_ != nullptr; }
  const Memory* memory() const { return memory_.get(); }
  size_t bytes() const { return memory_ ? memory_->bytes : 0; }
  View view(DType type, int64_t rows, int64_t cols, size_t offset = 0) const {
    assert(offset + bytesFor(type, cols) * size_t(rows) <= bytes());
    return {memory_.get(), offset, type, rows, cols};
  }

 private:
  std::unique_ptr<Memory> memory_;
};

}  // namespace pg
