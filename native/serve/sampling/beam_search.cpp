#include "serve/sampling/beam_search.h"

#include <algorithm>
#include <cmath>

namespace pg {

BeamSearch::BeamSearch(int width, double lengthPenalty, int64_t maxTokens, std::function<bool(int32_t)> ends)
    : width_(size_t(width)), lengthPenalty_(lengthPenalty), maxTokens_(maxTokens), ends_(std::move(ends)) {}

double BeamSearch::normalised(double logProb, size_t length) const {
  return logProb / std::pow(double(length), lengthPenalty_);
}

void BeamSearch::start(const KvSequence& kv, std::span<const float> logits) {
  std::vector<Hypothesis> root;
  root.push_back({kv.fork(), {}, 0});
  expand(std::move(root), logits, int64_t(logits.size()));
}

void BeamSearch::appendRows(std::vector<DecodeRow>& rows, int64_t firstPosition, int64_t prefix) {
  for (Hypothesis& h : live_)
    rows.push_back({&h.kv, h.tokens.back().id, firstPosition + int64_t(h.tokens.size()) - 1, prefix});
}

void BeamSearch::advance(std::span<const float> logits, int64_t vocab) { expand(std::move(live_), logits, vocab); }

void BeamSearch::expand(std::vector<Hypothesis> parents, std::span<const float> logits, int64_t vocab) {
  struct Candidate {
    double logProb;      // of the whole hypothesis
    float tokenLogProb;
    size_t parent;
    int32_t id;
  };
  // Twice the width: should all of the best half end, the width can still be filled.
  std::vector<Candidate> candidates;
  for (size_t p = 0; p < parents.size(); ++p) {
    SamplingOptions options;
    options.logProbs = int32_t(2 * width_);
    const TokenChoice choice = Sampler(options).pick(logits.subspan(p * size_t(vocab), size_t(vocab)), {});
    for (const auto& [id, logProb] : choice.top)
      candidates.push_back({parents[p].logProb + double(logProb), logProb, p, id});
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.logProb > b.logProb; });
  candidates.resize(std::min(candidates.size(), 2 * width_));

  live_.clear();
  for (size_t rank = 0; rank < candidates.size() && live_.size() < width_; ++rank) {
    const Candidate& c = candidates[rank];
    const Hypothesis& parent = parents[c.parent];
    if (ends_(c.id)) {
      // an end token beyond the width's best would not have been followed
      if (rank < width_) keep({parent.tokens, true, normalised(c.logProb, parent.tokens.size() + 1)});
      continue;
    }
    Hypothesis child{parent.kv.fork(), parent.tokens, c.logProb};
    TokenChoice token;
    token.id = c.id;
    token.logProb = c.tokenLogProb;
    child.tokens.push_back(std::move(token));
    live_.push_back(std::move(child));
  }

  const size_t length = live_.empty() ? 0 : live_.front().tokens.size();
  if (!live_.empty() && int64_t(length) >= maxTokens_) {
    for (const Hypothesis& h : live_) keep({h.tokens, false, normalised(h.logProb, length)});
    live_.clear();
  }
  // Nothing that still runs can beat the worst that is done: log-probabilities only fall.
  if (done_.size() >= width_ && !live_.empty() && done_.back().score >= normalised(live_.front().logProb, length))
    live_.clear();
  finished_ = live_.empty();
}

void BeamSearch::keep(Result result) {
  const auto place = std::upper_bound(done_.begin(), done_.end(), result.score,
                                      [](double score, const Result& r) { return score > r.score; });
  done_.insert(place, std::move(result));
  if (done_.size() > width_) done_.pop_back();
}

}  // namespace pg
