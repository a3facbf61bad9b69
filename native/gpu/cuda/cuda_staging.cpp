#include "gpu/cuda/cuda_staging.h"

#include <algorithm>
#include <cstring>

#include "base/math.h"

namespace pg::gpu::cuda {

// Some systems refuse page-locked memory, by a limit; then the driver copies through its own.
bool Staging::open() {
  if (state_ != State::unopened) return state_ == State::open;
  state_ = State::open;
  for (Slot& slot : slots_) {
    void* memory = nullptr;
    if (context_.api.allocateHost(&memory, kSlotBytes, 0) != kSuccess ||
        context_.api.createEvent(&slot.free, kNoTiming) != kSuccess) {
      if (memory) context_.api.freeHost(memory);
      close();
      state_ = State::refused;
      return false;
    }
    slot.memory = static_cast<uint8_t*>(memory);
  }
  return true;
}

void Staging::close() {
  for (Slot& slot : slots_) {
    if (slot.free) context_.api.destroyEvent(slot.free);
    if (slot.memory) context_.api.freeHost(slot.memory);
    slot = {};
  }
  state_ = State::unopened;
}

// A slot with some room left; waits where the card has not yet read what is in it.
Staging::Slot& Staging::room() {
  if (slots_[current_].used < kSlotBytes) return slots_[current_];
  context_.check(context_.api.record(slots_[current_].free, stream_), "copying to the GPU");
  slots_[current_].pending = true;
  current_ = (current_ + 1) % slots_.size();
  Slot& slot = slots_[current_];
  if (slot.pending) context_.check(context_.api.synchronizeEvent(slot.free), "copying to the GPU");
  slot.pending = false;
  slot.used = 0;
  return slot;
}

void Staging::upload(Pointer to, const void* data, size_t bytes) {
  if (!open()) return context_.check(context_.api.copyToDevice(to, data, bytes, stream_), "copying to the GPU");
  const auto* from = static_cast<const uint8_t*>(data);
  while (bytes > 0) {
    Slot& slot = room();
    const size_t count = std::min(bytes, kSlotBytes - slot.used);
    std::memcpy(slot.memory + slot.used, from, count);
    context_.check(context_.api.copyToDevice(to, slot.memory + slot.used, count, stream_), "copying to the GPU");
    slot.used = roundUp(slot.used + count, kAlign);
    to += count, from += count, bytes -= count;
  }
}

void Staging::download(void* data, Pointer from, size_t bytes) {
  const bool staged = open();
  auto* to = static_cast<uint8_t*>(data);
  do {
    // waiting for the copy waits for the slot, too: it may be used from its start
    const size_t count = staged ? std::min(bytes, kSlotBytes) : bytes;
    Slot& slot = slots_[current_];
    if (count > 0)
      context_.check(context_.api.copyToHost(staged ? slot.memory : to, from, count, stream_), "copying from the GPU");
    context_.check(context_.api.synchronize(stream_), "computing");
    if (staged) {
      std::memcpy(to, slot.memory, count);
      slot.used = 0;
    }
    to += count, from += count, bytes -= count;
  } while (bytes > 0);
}

}  // namespace pg::gpu::cuda
