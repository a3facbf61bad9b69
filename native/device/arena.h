#pragma once
// Scratch views carved one after another out of one Buffer; lifetimes nest (a Scope gives back what was taken in it).
#include "base/math.h"
#include "device/device.h"

namespace pg {

class Arena {
 public:
  explicit Arena(Device& device) : device_(device) {}

  // Makes room for `bytes` in all; only while nothing is taken. Never shrinks: requests of one model are alike.
  void reserve(size_t bytes) {
    assert(used_ == 0);
    if (bytes > buffer_.bytes()) {
      buffer_ = Buffer();  // free first: the two never exist together
      buffer_ = device_.allocate(bytes);
    }
  }
  // Everything taken is given back at once.
  void reset() { used_ = 0; }

  View take(int64_t rows, int64_t cols, DType type = DType::f32) {
    const size_t bytes = sizeOf(rows, cols, type);
    if (used_ + bytes > buffer_.bytes()) fail(Code::internal, "Scratch of ", buffer_.bytes(), " bytes is too small");
    const View view = buffer_.view(type, rows, cols, used_);
    used_ += bytes;
    return view;
  }
  // What take() uses: rounded to cache lines.
  static size_t sizeOf(int64_t rows, int64_t cols, DType type = DType::f32) {
    return roundUp<size_t>(bytesFor(type, cols) * size_t(rows), 64);
  }

  class Scope {
   public:
    explicit Scope(Arena& arena) : arena_(arena), mark_(arena.used_) {}
    ~Scope() { arena_.used_ = mark_; }
    Scope(const Scope&) = delete;

   private:
    Arena& arena_;
    size_t mark_;
  };

 private:
  Device& device_;
  Buffer buffer_;
  size_t used_ = 0;
};

}  // namespace pg
