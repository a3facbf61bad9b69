#pragma once
// Events from the engine's thread to the JavaScript thread: a queue and one doorbell. The bell is a thread-safe
// function without payload, rung only when it is not ringing already, so a fast engine costs one wake-up per batch and
// nothing is lost or blocked when the environment ends.
#include <node_api.h>

#include <mutex>
#include <utility>
#include <vector>

#include "serve/engine.h"

namespace pg {

class Mailbox {
 public:
  explicit Mailbox(napi_threadsafe_function bell) : bell_(bell) {}

  // The engine's thread.
  void post(Event event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(std::move(event));
    if (rung_ || closed_) return;
    rung_ = napi_call_threadsafe_function(bell_, nullptr, napi_tsfn_nonblocking) == napi_ok;
  }

  // The JavaScript thread: what has come since the last call.
  std::vector<Event> take() {
    const std::lock_guard lock(mutex_);
    rung_ = false;
    return std::exchange(events_, {});
  }

  // The bell is about to be released; events are only kept from now on.
  void close() {
    const std::lock_guard lock(mutex_);
    closed_ = true;
  }

 private:
  std::mutex mutex_;
  std::vector<Event> events_;
  bool rung_ = false, closed_ = false;
  const napi_threadsafe_function bell_;
};

}  // namespace pg
