#pragma once
// A stack that code runs on and leaves in the middle: how one thread of the CPU carries a whole group of a GPU's.
// AddressSanitizer is told of every change.
#include <cstddef>

namespace pg::gpu {

class Fiber {
 public:
  using Entry = void (*)();  // must not return

  Fiber();                              // what runs now on this thread: something to come back to
  Fiber(Entry entry, size_t stackBytes);
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Leaves this one, which runs now, for `to`; returns when somebody switches back.
  void switchTo(Fiber& to);
  // What an entry must call first.
  static void entered();

 private:
  void* sp_ = nullptr;
  void* mapped_ = nullptr;      // none: a thread's own stack
  const void* bottom_ = nullptr;
  size_t size_ = 0;
  void* fake_ = nullptr;        // AddressSanitizer's
};

}  // namespace pg::gpu
