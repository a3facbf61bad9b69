#pragma once
// Bytes on their way between the host and the card, through memory that the card reaches by itself: the caller's may go
// at once, and large pieces travel while the next are copied.
#include <array>

#include "gpu/cuda/cuda_context.h"

namespace pg::gpu::cuda {

class Staging {
 public:
  // Within a CardContext::Use, like everything here.
  Staging(CardContext& context, Stream stream) : context_(context), stream_(stream) {}
  void close();  // gives everything back

  void upload(Pointer to, const void* data, size_t bytes);
  void download(void* data, Pointer from, size_t bytes);

 private:
  struct Slot {
    uint8_t* memory = nullptr;
    Event free = nullptr;  // when the card has read it
    size_t used = 0;
    bool pending = false;
  };
  static constexpr size_t kSlotBytes = size_t(8) << 20, kAlign = 64;

  bool open();
  Slot& room();

  CardContext& context_;
  Stream stream_;
  std::array<Slot, 3> slots_;
  size_t current_ = 0;
  enum class State { unopened, open, refused } state_ = State::unopened;
};

}  // namespace pg::gpu::cuda
