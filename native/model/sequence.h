#pragma once
// One request while it runs: its tokens, cache, sampler and the text that has come out so far.
#include <chrono>
#include <memory>
#include <optional>

#include "base/cancel.h"
#include "model/beam_search.h"
#include "model/constraint.h"
#include "model/embedding_cache.h"
#include "model/engine.h"
#include "model/model.h"
#include "model/prompt.h"
#include "model/stop_matcher.h"

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
  std::vector<float> imageRows;       // [pictures * imageTokens, hidden]; released once the prefill has them
  AdapterChoice adapters;
  Timings timings;

  int64_t slots() const { return std::max(1, job->request.beams); }   // rows it takes in a decode step, at most

  // The first token, from the logits [vocab] after the prefix. Events to post are appended to `out`.
  void begin(std::span<const float> logits, std::vector<Event>& out);
  void appendRows(std::vector<DecodeRow>& rows);
  // logits [its rows, vocab] of a decode step.
  void advance(std::span<const float> logits, std::vector<Event>& out);
  bool finished() const { return !finishReason_.empty(); }   // its end event is out

 private:
  void emit(TokenChoice choice, std::vector<Event>& out);
  void finishBeams(std::vector<Event>& out);
  void end(std::vector<Event>& out);

  Model& model_;
  Sampler sampler_;
  Utf8Stream utf8_;
  StopMatcher stops_;
  std::optional<Constraint> constraint_;
  std::optional<BeamSearch> beams_;
  std::vector<int32_t> history_;      // what the repeat penalty sees
  int64_t completionTokens_ = 0;
  int32_t lastToken_ = 0;
  std::string finishReason_;
  Clock::time_point firstToken_;
};

}  // namespace pg
