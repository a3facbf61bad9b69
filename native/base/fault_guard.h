#pragma once
// Mapped files that shrink under us. A page that the file no longer has raises SIGBUS in whatever thread touches it;
// inside the ranges named here it becomes a page of zeros and a flag, and the process goes on. Elsewhere the handler
// that was there before decides. Windows does not let mapped files shrink: nothing happens there.
#include <atomic>
#include <cstddef>

namespace pg {

class FaultGuard {
 public:
  // Watches the mapping until destroyed, which must be before it is unmapped. The first one installs the handler,
  // unless PALIGEMMA_FAULT_HANDLER is 0.
  FaultGuard(const void* data, size_t size);
  ~FaultGuard();
  FaultGuard(const FaultGuard&) = delete;
  FaultGuard& operator=(const FaultGuard&) = delete;

  // Some page was lost: from it to the mapping's end all bytes are zero now.
  bool faulted() const { return slot_ && slot_->faulted.load(std::memory_order_acquire); }

  // What the handler walks through. Never freed, so that it needs no lock.
  struct Slot {
    std::atomic<const char*> begin{nullptr};  // nullptr: free
    std::atomic<size_t> size{0};
    std::atomic<bool> faulted{false};
    Slot* next = nullptr;
  };

 private:
  Slot* slot_ = nullptr;
};

}  // namespace pg
