#include "serve/sampling/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/largest.h"

namespace pg {
namespace {

// exp(x) for x <= 0, correct to about 1e-16: not the library's, so that every machine draws the same token.
double expOf(double x) {
  if (!(x > -700)) return 0;
  constexpr double kLog2e = 1.4426950408889634,
                   kRound = 6755399441055744.0;  // 1.5 * 2^52: adding it rounds to an integer
  constexpr double kLn2High = 0x1.62e42fefa0000p-1, kLn2Low = 0x1.cf79abc9e3b39p-40;
  const double shifted = x * kLog2e + kRound, n = shifted - kRound;
  const double r = (x - n * kLn2High) - n * kLn2Low;  // |r| <= ln 2 / 2
  double e = 1.0 / 6227020800;                        // 1 / 13!
  for (double divisor :
       {479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0})
    e = e * r + 1 / divisor;
  const int64_t exponent = int64_t(n) + 1023;
  const uint64_t bits = uint64_t(exponent) << 52;
  double power;
  memcpy(&power, &bits, 8);
  return e * power;
}

// exp(logit - top): 1 for the best itself even where it is infinite, 0 for NaN.
double weightOf(float logit, float top) { return logit == top ? 1 : expOf(double(logit) - double(top)); }

// log of the sum of exp(logit - top).
double logSum(std::span<const float> logits, float top) {
  double sum = 0;
  for (const float v : logits)
    if (v >= top - 45) sum += weightOf(v, top);  // all that is left out adds less than 1e-14
  return std::log(sum);
}

float relative(float logit, float top, double logSum) {
  if (std::isnan(logit)) return kNothing;
  return float((logit == top ? 0 : double(logit) - double(top)) - logSum);
}

}  // namespace

Sampler::Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) {
  SamplingOptions::each(options, [](const char* name, auto value, const OptionRange& range) {
    if (!range.holds(double(value)))
      fail(Code::invalidOption, "Expected a number ", range.aboveMin ? "> " : ">= ", range.min, " and <= ", range.max,
           " for ", name, " but received ", value);
  });
}

TokenChoice Sampler::pick(std::span<const float> logits, std::span<const int32_t> history,
                          std::span<const int32_t> allowed, bool quiet) {
  quiet |= options_.logProbs < 0;
  if (quiet && allowed.size() == 1) {
    TokenChoice only;
    only.id = allowed[0];
    return only;
  }
  std::span<const float> scores = logits;  // after the repeat penalty
  if (options_.repeatPenalty != 1 && !history.empty()) {
    scratch_.assign(logits.begin(), logits.end());
    for (const int32_t id : history)
      if (id >= 0 && size_t(id) < logits.size()) {  // from the original: an id that repeats counts once
        const float v = logits[size_t(id)];
        scratch_[size_t(id)] = v > 0 ? v / options_.repeatPenalty : v * options_.repeatPenalty;
      }
    scores = scratch_;
  }

  int32_t best = -1;
  if (allowed.empty()) {
    best = largestOf(scores);
  } else {
    for (const int32_t id : allowed) {
      if (id < 0 || size_t(id) >= scores.size()) continue;
      const float v = scores[size_t(id)];
      if (best < 0 ? v > kNothing : v > scores[size_t(best)] || (v == scores[size_t(best)] && id < best)) best = id;
    }
  }
  if (best < 0) failUnusable(allowed.empty() ? logits.size() : allowed.size());

  TokenChoice choice;
  // a token without an alternative takes no random number, so that it may also be taken without logits
  choice.id = options_.temperature > 0 && allowed.size() != 1 ? draw(scores, allowed, scores[size_t(best)]) : best;
  if (quiet) return choice;

  const float top = logits[size_t(std::max(largestOf(logits), 0))];
  const double sum = logSum(logits, top);
  choice.logProb = relative(logits[size_t(choice.id)], top, sum);
  if (options_.logProbs > 0) {
    const auto better = [&](int32_t a, int32_t b) {
      const float x = logits[size_t(a)], y = logits[size_t(b)];
      return x > y || (x == y && a < b);
    };
    order_.clear();  // a heap of the n best, worst on top
    for (int32_t id = 0; size_t(id) < logits.size(); ++id) {
      if (std::isnan(logits[size_t(id)])) continue;
      if (order_.size() == size_t(options_.logProbs)) {
        if (!better(id, order_.front())) continue;
        std::pop_heap(order_.begin(), order_.end(), better);
        order_.pop_back();
      }
      order_.push_back(id);
      std::push_heap(order_.begin(), order_.end(), better);
    }
    std::sort_heap(order_.begin(), order_.end(), better);
    for (const int32_t id : order_) choice.top.emplace_back(id, relative(logits[size_t(id)], top, sum));
  }
  return choice;
}

void Sampler::failUnusable(size_t logits) {
  fail(Code::modelInvalid, "The model gave no usable logit: all of ", logits,
       " are NaN or minus infinity. Its weights hold values that are not finite; convert names the tensor, or "
       "download the file again");
}

size_t Sampler::needed() const {
  if (options_.logProbs >= 0 || options_.repeatPenalty != 1) return 0;
  if (options_.temperature == 0) return 1;
  return options_.topK > 0 ? size_t(options_.topK) + 1 : 0;   // one more shows whether topK leaves any out
}

// Filters in the order temperature, topK, topP, minP; then one draw. top: the best allowed score.
int32_t Sampler::draw(std::span<const float> scores, std::span<const int32_t> allowed, float top) {
  const double inverse = 1 / double(options_.temperature);
  const auto weight = [&](int32_t id) {
    const float v = scores[size_t(id)];
    return v == top ? 1.0 : expOf((double(v) - double(top)) * inverse);
  };
  const double least = double(top) - 45 * double(options_.temperature);  // a vocabulary of those adds less than 1e-14
  order_.clear();
  const auto add = [&](int32_t id) {
    if (scores[size_t(id)] >= least) order_.push_back(id);  // leaves NaN out
  };
  if (allowed.empty())
    for (int32_t id = 0; size_t(id) < scores.size(); ++id) add(id);
  else
    for (const int32_t id : allowed)
      if (id >= 0 && size_t(id) < scores.size()) add(id);

  const auto better = [&](int32_t a, int32_t b) {
    const float x = scores[size_t(a)], y = scores[size_t(b)];
    return x > y || (x == y && a < b);
  };
  size_t sorted = 0;  // ids at the front that are in order, best first
  const auto sortUpTo = [&](size_t count) {
    count = std::min(count, order_.size());
    if (count <= sorted) return;
    std::partial_sort(order_.begin() + ptrdiff_t(sorted), order_.begin() + ptrdiff_t(count), order_.end(), better);
    sorted = count;
  };
  if (options_.topK > 0 && size_t(options_.topK) < order_.size()) {
    sortUpTo(size_t(options_.topK));
    order_.resize(sorted);
  }
  if (options_.topP < 1) {
    double total = 0, reached = 0;
    for (const int32_t id : order_) total += weight(id);
    size_t kept = 0;
    while (kept < order_.size() && reached < options_.topP * total) {
      if (kept == sorted) sortUpTo(std::max<size_t>(64, sorted * 4));
      reached += weight(order_[kept++]);
    }
    order_.resize(std::max<size_t>(kept, 1));
  }
  if (options_.minP > 0) std::erase_if(order_, [&](int32_t id) { return weight(id) < options_.minP; });

  double total = 0;
  for (const int32_t id : order_) total += weight(id);
  // 53 bits of the generator, which the standard fixes exactly (its distributions are not)
  double left = double(random_() >> 11) * 0x1p-53 * total;
  for (const int32_t id : order_) {
    left -= weight(id);
    if (left < 0) return id;
  }
  return order_.back();  // rounding
}

float nearLogProbOf(std::span<const float> logits, int32_t id, float logProb, int32_t first, int32_t last,
                    int32_t steps) {
  const double own = logits[size_t(id)];
  double sum = 0;  // relative to id
  for (int32_t i = std::max(first, id - steps); i <= std::min(last, id + steps); ++i)
    sum += i == id ? 1 : std::exp(double(logits[size_t(i)]) - own);
  return std::isfinite(sum) ? std::min(0.0f, float(double(logProb) + std::log(sum))) : logProb;
}

float logProbOf(std::span<const float> logits, int32_t id) {
  if (id < 0 || size_t(id) >= logits.size()) fail(Code::internal, "logProbOf: token ", id, " of ", logits.size());
  const int32_t best = largestOf(logits);
  if (best < 0) return kNothing;
  const float top = logits[size_t(best)];
  return relative(logits[size_t(id)], top, logSum(logits, top));
}

}  // namespace pg
