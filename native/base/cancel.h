#pragma once
#include <atomic>

#include "base/error.h"

namespace pg {

// Set from any thread, read by the engine between layers and tokens.
struct CancelFlag {
  std::atomic<bool> set{false};

  void throwIfSet() const {
    if (set.load(std::memory_order_relaxed)) fail(Code::aborted, "The request was cancelled");
  }
};

}  // namespace pg
