#pragma once
// One request while it runs: its tokens, cache, sampler and the text that has come out so far.
#include <chrono>
#include <memory>
#include <optional>

#include "base/cancel.h"
#include "serve/sampling/beam_search.h"
#include "text/constraint.h"
#include "serve/cache/embedding_cache.h"
#include "serve/event.h"
#include "serve/load/model.h"
#include "serve/prompt.h"
#include "serve/request.h"
#include "text/stop_matcher.h"

namespace pg {

using Clock = std::chrono::steady_clock;

inline double milliseconds(Clock::time_point from, Clock::time_point to = Clock::now()) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

// A request as submitted. The cancel flag is the only part that another thread touches.
struct Job {
  uint32_t id = 0;
  Request request;
  CancelFlag cancel;
  Clock::time_point submitted = Clock::now();
};

class Sequence {
 public:
  // Tokenizes and checks the request; fails with promptTooLong, invalidOption or modelUnsupported.
  Sequence(std::shared_ptr<Job> job, Model& model);

  const std::shared_ptr<Job> job;
  Prompt prompt;
  KvSequence kv;
  std::vector<EmbeddingCache::Features>
      images;   // of each picture [imageTokens, hidden]; released once the prefill has them
  AdapterChoice adapters;
  Timings timings;

  // The first token, from the logits [vocab] after the prefix. Events to post are appended to `out`.
  void begin(std::span<const float> logits, std::vector<Event>& out);
  // The tokens that enter the next decode step: without beams at most `budget`, which are those that came and are not
  // in the cache yet, then, where log-probabilities are wanted, those that must follow.
  void appendRows(std::vector<DecodeRow>& rows, size_t budget);
  // logits [its rows, vocab] of a decode step, of which what its rows did not ask for is not read.
  void advance(std::span<const float> logits, std::vector<Event>& out);
  bool finished() const { return finishReason_ != FinishReason::none; }  // its end event is out

 private:
  void emit(TokenChoice choice, std::vector<Event>& out);
  void take(std::span<const float> logits, std::vector<Event>& out);
  void takeKnown(std::vector<Event>& out);
  DecodeRow::Head nextHead() const;  // what choosing the next token needs; none where it is known
  bool quiet() const {
    return generate_.sampling.logProbs < 0 || (generate_.scoredOnly && constraint_ && !constraint_->scored());
  }
  bool full(int64_t tokens) const;  // no token may follow so many
  void finishBeams(std::vector<Event>& out);
  void end(std::vector<Event>& out);

  void checkImages() const;
  void checkLength() const;
  void startBeams();

  Model& model_;
  const Generate& generate_;  // of the request; defaults where it generates nothing
  Sampler sampler_;
  Utf8Stream utf8_;
  StopMatcher stops_;
  std::unique_ptr<Constraint> constraint_;
  std::optional<BeamSearch> beams_;
  std::vector<int32_t> history_;  // what the repeat penalty sees
  int64_t completionTokens_ = 0;
  std::vector<int32_t> unfed_;  // came and is not in the cache
  int64_t cached_ = 0;  // generated tokens in the cache
  size_t ahead_ = 0;  // of these, still to come
  std::vector<int32_t> best_;  // of the step, if the device chose among the logits
  bool chosen_ = false;  // it did
  size_t wanted_ = 0;  // of the step's rows, the last so many have logits
  FinishReason finishReason_ = FinishReason::none;
  Clock::time_point firstToken_;
};

}  // namespace pg
