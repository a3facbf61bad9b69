#pragma once
// What the engine says of a job: ready or failed (job 0), tokens, and one closing event, an end or an error.
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/error.h"
#include "serve/sampling/sampler.h"

namespace pg {

// The engine has loaded its model.
struct ReadyEvent {};

struct TokenEvent {
  TokenChoice choice;
  std::string text;       // what may be shown now: complete characters, held back while a stop string may be forming
  std::string tokenText;  // the characters this token completed
};

struct Timings {  // milliseconds
  double visionMs = 0, prefillMs = 0, firstTokenMs = 0, decodeMs = 0, queueMs = 0;
};

// stop: the model ended, or a stop string came; length: maxTokens or the context was reached.
enum class FinishReason { none, stop, length };

inline const char* finishReasonName(FinishReason reason) { return reason == FinishReason::length ? "length" : "stop"; }

// One intermediate result: "vision" and "projector" per picture, "hidden" per layer (0 = input, the last one after the
// final norm), "logits" of every position. Importance: one per matrix, see importance.h.
struct Stage {
  std::string name;
  int64_t rows = 0, cols = 0;
  std::vector<float> data;
};

struct EndEvent {
  std::string text;  // what was still held back
  FinishReason finishReason = FinishReason::stop;
  int64_t imageTokens = 0, promptTokens = 0, completionTokens = 0;
  Timings timings;
  std::vector<TokenEvent> scored;  // Score: one per suffix token, then eos
  std::vector<float> embedding;  // EncodeImage: [imageTokens, textHidden]; Embed: [tokens, retrievalDims], of length 1
  std::vector<Stage> stages;  // Trace, Importance, Score with logits, FitRead
  std::vector<double> values;  // Training and AddAdapter, see request.h and fit_task.cpp
};

struct ErrorEvent {
  Code code = Code::internal;
  std::string message;
};

// The engine's thread has ended; nothing follows.
struct StoppedEvent {};

struct Event {
  uint32_t job = 0;  // 0: the engine itself (ready, a failed load, stopped)
  std::variant<ReadyEvent, TokenEvent, EndEvent, ErrorEvent, StoppedEvent> what;

  template <class Kind>
  bool is() const {
    return std::holds_alternative<Kind>(what);
  }
  template <class Kind>
  const Kind* get() const {
    return std::get_if<Kind>(&what);
  }
};

}  // namespace pg
