#pragma once
// Beam search with length normalisation: hypotheses share their KV pages until they differ.
#include <functional>
#include <span>
#include <vector>

#include "model/decoder.h"
#include "serve/sampling/sampler.h"

namespace pg {

class BeamSearch {
 public:
  // lengthPenalty: a finished hypothesis scores sum of log-probabilities / length^lengthPenalty, its end token counted
  // (as Hugging Face's generate). ends(id): whether a token ends a hypothesis. maxTokens: without the end token.
  BeamSearch(int width, double lengthPenalty, int64_t maxTokens, std::function<bool(int32_t)> ends);

  // logits [vocab] after the prefix; `kv` is forked for each beam.
  void start(const KvSequence& kv, std::span<const float> logits);
  // The rows of the next decode step, positions from `firstPosition` (that of the first generated token) on.
  void appendRows(std::vector<DecodeRow>& rows, int64_t firstPosition, int64_t prefix);
  // logits [rows, vocab] of those rows.
  void advance(std::span<const float> logits, int64_t vocab);
  int64_t rowCount() const { return int64_t(live_.size()); }
  bool finished() const { return finished_; }

  struct Result {
    std::vector<TokenChoice> tokens;  // without the end token
    bool ended = false;  // false: cut at maxTokens
    double score = 0;
  };
  const Result& best() const { return done_.front(); }

 private:
  struct Hypothesis {
    KvSequence kv;
    std::vector<TokenChoice> tokens;
    double logProb = 0;
  };
  void expand(std::vector<Hypothesis> parents, std::span<const float> logits, int64_t vocab);
  void keep(Result result);
  double normalised(double logProb, size_t length) const;

  size_t width_;
  double lengthPenalty_;
  int64_t maxTokens_;
  std::function<bool(int32_t)> ends_;
  std::vector<Hypothesis> live_;  // best first
  std::vector<Result> done_;  // best first, at most width_
  bool finished_ = false;
};

}  // namespace pg
