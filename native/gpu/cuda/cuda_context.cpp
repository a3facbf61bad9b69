#include "gpu/cuda/cuda_context.h"

#include <map>
#include <mutex>

#include "base/error.h"

namespace pg::gpu::cuda {

struct CardContext::Shared {
  std::shared_mutex mutex;   // exclusive while the context is made anew
  uint64_t generation = 0;   // how often it was
};

CardContext::Shared& CardContext::sharedOf(int card) {
  static std::mutex mutex;
  static std::map<int, Shared> all;
  const std::lock_guard lock(mutex);
  return all[card];
}

CardContext::CardContext(const Card& card) : api(Api::load()), card_(card), shared_(sharedOf(card.index)) {
  const std::unique_lock lock(shared_.mutex);
  check(api.device(&device_, card.index), "finding the GPU");
  enter();
  generation_ = shared_.generation;
}

// Retains the context; one that does not answer is reset first.
void CardContext::enter() {
  for (const bool again : {false, true}) {
    const Result retained = api.retainContext(&context_, device_);
    if (retained == kNoMemory)
      fail(Code::outOfMemory, card_.name, " has no memory left for a context. Close other programs that use it");
    Result result = retained;
    if (retained == kSuccess) {
      result = api.pushContext(context_);
      if (result == kSuccess) {
        result = api.synchronizeContext();
        Context popped = nullptr;
        api.popContext(&popped);
      }
      if (result == kSuccess) return;
      api.releaseContext(device_);
    }
    if (again || api.resetContext(device_) != kSuccess)
      fail(Code::deviceUnavailable, card_.name, " cannot be used: ", api.text(result),
           ". Another program may hold it, or its driver needs a restart");
    ++shared_.generation;
  }
}

CardContext::~CardContext() {
  const std::unique_lock lock(shared_.mutex);
  // a reset took back what those before it retained
  if (generation_ == shared_.generation) api.releaseContext(device_);
}

CardContext::Use::Use(CardContext& context) : context_(context), lock_(context.shared_.mutex) {
  if (context.generation_ != context.shared_.generation) context.lost_ = true;
  if (context.lost_) fail(Code::deviceLost, context.card_.name, " was lost before. Load the model again");
  context.check(context.api.pushContext(context.context_), "entering the context");
}

CardContext::Use::~Use() {
  Context popped = nullptr;
  context_.api.popContext(&popped);
}

void CardContext::failed(Result result, const char* what) {
  if (result == kNoMemory) fail(Code::outOfMemory, card_.name, " has no memory left for ", what);
  if (result == kInvalidValue || result == kNotFound || result == kTooManyResources)
    fail(Code::internal, "CUDA refuses ", what, ": ", api.text(result));
  lost_ = true;
  fail(Code::deviceLost, card_.name, " failed while ", what, ": ", api.text(result),
       ". Load the model again; nvidia-smi and the system's log may say more");
}

}  // namespace pg::gpu::cuda
