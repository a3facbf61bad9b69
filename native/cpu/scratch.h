#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

namespace pg {

// Grows, never shrinks, keeps nothing when it grows; starts on a cache line.
class Scratch {
 public:
  template <class T>
  T* get(size_t n) {
    if (n * sizeof(T) > bytes_) {
      data_.reset();
      bytes_ = n * sizeof(T) + n * sizeof(T) / 8;
      data_.reset(static_cast<uint8_t*>(::operator new(bytes_, std::align_val_t{64})));
    }
    return reinterpret_cast<T*>(data_.get());
  }
  void release() { data_.reset(), bytes_ = 0; }

 private:
  struct Free {
    void operator()(uint8_t* p) const { ::operator delete(p, std::align_val_t{64}); }
  };
  std::unique_ptr<uint8_t, Free> data_;
  size_t bytes_ = 0;
};

}  // namespace pg
