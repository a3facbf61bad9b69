#pragma once
// A card's context, which all models of the process share, and what its errors mean.
#include <memory>
#include <shared_mutex>

#include "gpu/cuda/cuda_api.h"
#include "gpu/cuda/cuda_devices.h"

namespace pg::gpu::cuda {

class CardContext {
 public:
  // Fails with deviceUnavailable or outOfMemory. One that a failed kernel left broken is made anew: who used it before
  // only ever hears deviceLost.
  explicit CardContext(const Card& card);
  ~CardContext();
  CardContext(const CardContext&) = delete;
  CardContext& operator=(const CardContext&) = delete;

  // Makes the context this thread's own for a while. Fails with deviceLost where it was made anew.
  class Use {
   public:
    explicit Use(CardContext& context);
    ~Use();
    Use(const Use&) = delete;

   private:
    CardContext& context_;
    std::shared_lock<std::shared_mutex> lock_;
  };

  const Api& api;
  // Fails with deviceLost for errors that a context does not survive, and with internal for our mistakes.
  void check(Result result, const char* what) {
    if (result != kSuccess) failed(result, what);
  }
  // Whether handles of this context may still be given back.
  bool alive() const { return !lost_; }

 private:
  struct Shared;  // one for each card of the process
  static Shared& sharedOf(int card);
  [[noreturn]] void failed(Result result, const char* what);
  void enter();

  Card card_;
  Device device_ = 0;
  Shared& shared_;
  uint64_t generation_ = 0;
  Context context_ = nullptr;
  bool lost_ = false;
};

}  // namespace pg::gpu::cuda
