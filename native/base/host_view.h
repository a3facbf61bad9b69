#pragma once
// Non-owning tensors in the host's memory: a pointer, a type and a shape. Row-major, outermost dimension first.
#include <cassert>
#include <cstdint>
#include <type_traits>

#include "base/dtype.h"

namespace pg {

// Rows of `cols` values. What a device computes with has another type, View (device/view.h).
template <class Byte>
struct BasicHostView {
  Byte* data = nullptr;
  DType type = DType::f32;
  int64_t rows = 0;
  int64_t cols = 0;
  size_t stride = 0;  // bytes from a row to the next

  BasicHostView() = default;
  BasicHostView(Byte* d, DType t, int64_t r, int64_t c) : BasicHostView(d, t, r, c, bytesFor(t, c)) {}
  BasicHostView(Byte* d, DType t, int64_t r, int64_t c, size_t s) : data(d), type(t), rows(r), cols(c), stride(s) {}

  explicit operator bool() const { return data != nullptr; }
  size_t bytes() const { return stride * size_t(rows); }

  BasicHostView slice(int64_t begin, int64_t count) const {
    assert(begin >= 0 && begin + count <= rows);
    return {data + stride * size_t(begin), type, count, cols, stride};
  }
  template <class T>
  auto* row(int64_t r) const {
    if constexpr (std::is_const_v<Byte>) return reinterpret_cast<const T*>(data + stride * size_t(r));
    else return reinterpret_cast<T*>(data + stride * size_t(r));
  }
  operator BasicHostView<const Byte>() const
    requires(!std::is_const_v<Byte>)
  {
    return {data, type, rows, cols, stride};
  }
};

using HostView = BasicHostView<uint8_t>;
using ConstHostView = BasicHostView<const uint8_t>;

}  // namespace pg
