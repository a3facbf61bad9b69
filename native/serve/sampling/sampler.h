#pragma once
// From logits to a token: greedy or random, with log-probabilities.
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <vector>

namespace pg {

// What a number among the options may be.
struct OptionRange {
  double min, max;
  bool aboveMin = false;  // min itself is excluded

  bool holds(double value) const { return value >= min && value <= max && !(aboveMin && value == min); }
};

// Filters apply in the order repeatPenalty, temperature, topK, topP, minP.
struct SamplingOptions {
  float temperature = 0;    // 0 = greedy
  int32_t topK = 0;         // 0 = off
  float topP = 1;           // 1 = off
  float minP = 0;           // 0 = off
  float repeatPenalty = 1;  // 1 = off; on generated tokens and the prompt's text tokens
  uint64_t seed = 0;
  int32_t logProbs = -1;    // -1 = none, 0 = of the chosen token, n = also of the n best

  // Calls visit(name, field, range) for each: who reads options and who checks them need no list of their own.
  template <class Options, class Visit>
  static void each(Options& options, const Visit& visit) {
    constexpr double kMost = 1e6;
    visit("temperature", options.temperature, OptionRange{0, kMost});
    visit("topK", options.topK, OptionRange{0, double(std::numeric_limits<int32_t>::max())});
    visit("topP", options.topP, OptionRange{0, 1, true});
    visit("minP", options.minP, OptionRange{0, 1});
    visit("repeatPenalty", options.repeatPenalty, OptionRange{0, kMost, true});
    visit("seed", options.seed, OptionRange{0, double((uint64_t(1) << 53) - 1)});
    visit("logProbs", options.logProbs, OptionRange{-1, 65536});
  }
};

struct TokenChoice {
  int32_t id = 0;
  float logProb =
      std::numeric_limits<float>::quiet_NaN();   // natural log, before temperature and filters; NaN: not asked for
  std::vector<std::pair<int32_t, float>> top;        // best first
  float nearLogProb =
      std::numeric_limits<float>::quiet_NaN();   // a location: of it and those next to it (nearLogProbOf)
};

class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);

  // Picks among ids with `allowed` (empty span = all ids below logits.size()). `history`: ids the repeat penalty sees.
  // Only the logits of allowed ids are read, unless log-probabilities are wanted; none where there is a single one.
  // Ties go to the smallest id. The same seed and logits give the same choice on every machine.
  // `quiet`: no log-probabilities this time, whatever the options say.
  TokenChoice pick(std::span<const float> logits, std::span<const int32_t> history,
                   std::span<const int32_t> allowed = {}, bool quiet = false);

  // How many of the largest logits a quiet pick among all ids needs: given their ids as `allowed`, it picks the same.
  // 0: it may need any.
  size_t needed() const;
  [[noreturn]] static void failUnusable(size_t logits);

 private:
  int32_t draw(std::span<const float> scores, std::span<const int32_t> allowed, float top);

  SamplingOptions options_;
  std::mt19937_64 random_;
  std::vector<float> scratch_;
  std::vector<int32_t> order_;
};

// log of the probability of id or another id within `steps` of it in [first, last], from id's own log-probability.
float nearLogProbOf(std::span<const float> logits, int32_t id, float logProb, int32_t first, int32_t last,
                    int32_t steps);

// log softmax(logits)[id], in double precision.
float logProbOf(std::span<const float> logits, int32_t id);

}  // namespace pg
