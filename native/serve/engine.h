#pragma once
// The facade the addon sees: one engine per loaded model, one thread that loads it and runs its requests.
#include <functional>
#include <memory>

#include "serve/event.h"
#include "serve/load/load_options.h"
#include "serve/request.h"
#include "text/tokenizer.h"

namespace pg {

// Pages of kPageTokens tokens, see KvPool.
struct KvUse {
  int64_t used;
  int64_t most;
};

class Engine {
 public:
  // Returns at once; `post` is called on the engine's thread: first ready or an error with job 0.
  Engine(LoadOptions options, std::function<void(Event)> post);
  ~Engine();  // stop()

  uint32_t submit(Request request);  // its job number, from 1; after a stop the job ends with ERR_DISPOSED
  void cancel(uint32_t job);  // its end is an error event with Code::aborted; unknown jobs are ignored
  void requestStop();  // returns at once; every job ends with ERR_DISPOSED, then a stopped event
  void stop();  // requestStop and join; idempotent, never on the engine's own thread

  // Valid after ready, from any thread, until the engine is destroyed.
  const ModelInfo& info() const;
  const Tokenizer& tokenizer() const;
  const MaskDecoder* maskDecoder() const;  // nullptr where the model has none
  KvUse kvUse() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace pg
