#include <array>
#include <limits>

#include "check.h"
#include "serve/sampling/sampler.h"
#include "text/stop_matcher.h"

using namespace pg;

namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInfinity = std::numeric_limits<float>::infinity();

// Shares of `draws` picks per id.
std::vector<double> shares(SamplingOptions options, const std::vector<float>& logits, std::vector<int32_t> allowed = {},
                           int draws = 20000) {
  Sampler sampler(options);
  std::vector<double> share(logits.size());
  for (int i = 0; i < draws; ++i) share[size_t(sampler.pick(logits, {}, allowed).id)] += 1.0 / draws;
  return share;
}

}  // namespace

TEST(greedy_takes_the_largest_and_the_smallest_id_among_equals) {
  Sampler sampler({});
  // longer than the blocks that the search uses, best in every position
  for (const size_t size : {1u, 7u, 255u, 256u, 257u, 1000u})
    for (size_t best = 0; best < size; best += 1 + size / 50) {
      std::vector<float> logits(size, -1.0f);
      for (size_t i = best; i < size; i += 3) logits[i] = 2;
      CHECK_EQUAL(size_t(sampler.pick(logits, {}).id), best);
    }
}

TEST(greedy_never_picks_nan_and_fails_when_nothing_else_is_there) {
  Sampler sampler({});
  std::vector<float> logits(600, kNaN);
  logits[431] = -7;
  CHECK_EQUAL(sampler.pick(logits, {}).id, 431);
  logits[599] = -6;
  CHECK_EQUAL(sampler.pick(logits, {}).id, 599);
  const std::vector<int32_t> allowed{0, 431, 5};
  CHECK_EQUAL(sampler.pick(logits, {}, allowed).id, 431);
  CHECK_FAILS(sampler.pick(std::vector<float>(600, kNaN), {}), Code::modelInvalid, "600");
}

TEST(sampling_never_picks_nan_or_what_is_not_allowed) {
  const std::vector<float> logits{kNaN, 1, -kInfinity, 1, 5, kNaN};
  const auto share = shares({.temperature = 1, .seed = 3}, logits, {0, 1, 2, 3, 5, 900});
  CHECK_CLOSE(share[1], 0.5, 0.02);
  CHECK_CLOSE(share[3], 0.5, 0.02);
}

TEST(sampling_follows_the_softmax_at_a_temperature) {
  const std::vector<float> logits{0, 1, 2, -1};
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    double sum = 0;
    for (const float v : logits) sum += std::exp(v / temperature);
    const auto share = shares({.temperature = temperature, .seed = 11}, logits);
    for (size_t i = 0; i < logits.size(); ++i) CHECK_CLOSE(share[i], std::exp(logits[i] / temperature) / sum, 0.015);
  }
}

TEST(sampling_filters_keep_what_they_say) {
  const std::vector<float> logits{std::log(0.1f), std::log(0.4f), std::log(0.3f), std::log(0.15f), std::log(0.05f)};
  auto share = shares({.temperature = 1, .topK = 2}, logits);
  CHECK_CLOSE(share[1], 4.0 / 7, 0.02);
  CHECK_CLOSE(share[2], 3.0 / 7, 0.02);
  share = shares({.temperature = 1, .topP = 0.75f}, logits);  // 0.4 + 0.3 < 0.75 <= 0.4 + 0.3 + 0.15
  CHECK_CLOSE(share[3], 0.15 / 0.85, 0.02);
  CHECK_EQUAL(share[0] + share[4], 0.0);
  share = shares({.temperature = 1, .topP = 1e-6f}, logits);
  CHECK_CLOSE(share[1], 1, 1e-9);
  share = shares({.temperature = 1, .minP = 0.3f}, logits);
  CHECK_EQUAL(share[0] + share[4], 0.0);
  CHECK(share[3] > 0.1);
}

TEST(sampling_is_the_same_for_the_same_seed_on_every_machine) {
  std::vector<float> logits;
  for (int i = 0; i < 1000; ++i) logits.push_back(float(i * 37 % 101) / 25);
  Sampler a({.temperature = 0.9f, .topP = 0.95f, .seed = 42}), b({.temperature = 0.9f, .topP = 0.95f, .seed = 42});
  std::string ids;
  for (int i = 0; i < 6; ++i) {
    const int32_t id = a.pick(logits, {}).id;
    CHECK_EQUAL(id, b.pick(logits, {}).id);
    ids += std::to_string(id) + " ";
  }
  CHECK_EQUAL(ids, std::string("739 630 436 19 482 90 "));
}

TEST(repeat_penalty_lowers_what_was_said_once) {
  Sampler sampler({.repeatPenalty = 2});
  const std::vector<float> logits{3, 2, -1};
  const std::vector<int32_t> history{0, 0, 0, -1, 99};
  CHECK_EQUAL(sampler.pick(logits, {}).id, 0);
  CHECK_EQUAL(sampler.pick(logits, history).id, 1);
  const std::vector<int32_t> all{0, 0, 1};
  CHECK_EQUAL(sampler.pick(logits, all).id, 0);  // 1.5 against 1: halved once, not twice
}

TEST(log_probabilities_are_those_of_the_model_before_any_filter) {
  const std::vector<float> logits{1, 3, kNaN, 2, 3};
  double sum = 0;
  for (const float v : {1.0f, 3.0f, 2.0f, 3.0f}) sum += std::exp(v);
  Sampler sampler({.temperature = 0.1f, .topK = 1, .logProbs = 3});
  const std::vector<int32_t> allowed{3};
  const TokenChoice choice = sampler.pick(logits, {}, allowed);
  CHECK_EQUAL(choice.id, 3);
  CHECK_CLOSE(choice.logProb, 2 - std::log(sum), 1e-6);
  CHECK_EQUAL(choice.top.size(), size_t(3));
  CHECK_EQUAL(choice.top[0].first, 1);
  CHECK_EQUAL(choice.top[1].first, 4);
  CHECK_EQUAL(choice.top[2].first, 3);
  CHECK_CLOSE(choice.top[0].second, 3 - std::log(sum), 1e-6);
  CHECK_CLOSE(logProbOf(logits, 0), 1 - std::log(sum), 1e-6);
  CHECK_EQUAL(logProbOf(logits, 2), -kInfinity);
  CHECK(Sampler({.logProbs = 0}).pick(logits, {}).top.empty());
}

TEST(sampler_names_a_bad_option) {
  CHECK_FAILS(Sampler({.temperature = -1}), Code::invalidOption, "temperature");
  CHECK_FAILS(Sampler({.temperature = kNaN}), Code::invalidOption, "temperature");
  CHECK_FAILS(Sampler({.topP = 0}), Code::invalidOption, "topP");
  CHECK_FAILS(Sampler({.minP = 2}), Code::invalidOption, "minP");
  CHECK_FAILS(Sampler({.repeatPenalty = 0}), Code::invalidOption, "repeatPenalty");
}

TEST(stop_strings_are_never_shown_however_the_text_is_cut) {
  const std::string text = "one <end of it> <end>two";
  for (size_t step = 1; step < text.size(); ++step) {
    StopMatcher stops({"<end>", "", "never"});
    std::string shown;
    for (size_t at = 0; at < text.size(); at += step) shown += stops.push(std::string_view(text).substr(at, step));
    shown += stops.flush();
    CHECK(stops.matched());
    CHECK_EQUAL(shown, std::string("one <end of it> "));
  }
}

TEST(stop_matcher_takes_what_is_complete_first) {
  for (const size_t step : {1u, 4u}) {
    StopMatcher stops({"abcd", "bc"});
    std::string shown;
    for (size_t at = 0; at < 4; at += step) shown += stops.push(std::string_view("abcd").substr(at, step));
    CHECK(stops.matched());
    CHECK_EQUAL(shown, std::string("a"));
  }
}

TEST(stop_matcher_gives_back_what_was_no_stop_string) {
  StopMatcher stops({"aab"});
  CHECK_EQUAL(stops.push("xaa"), std::string("x"));
  CHECK_EQUAL(stops.push("a"), std::string("a"));
  CHECK_EQUAL(stops.flush(), std::string("aa"));
  CHECK(!stops.matched());
  StopMatcher none({});
  CHECK_EQUAL(none.push("text"), std::string("text"));
}

TEST(sampler_near_log_prob_is_the_sum_of_the_neighbours) {
  std::vector<float> logits(40);
  for (size_t i = 0; i < logits.size(); ++i) logits[i] = float((i * 7) % 11) * 0.5f;
  for (const auto& [id, first, last, steps] :
       {std::array{20, 10, 30, 3}, std::array{10, 10, 30, 4}, std::array{30, 10, 30, 40}, std::array{15, 10, 30, 0}}) {
    double sum = 0;
    for (int32_t i = std::max(first, id - steps); i <= std::min(last, id + steps); ++i)
      sum += std::exp(double(logProbOf(logits, i)));
    CHECK_CLOSE(nearLogProbOf(logits, id, logProbOf(logits, id), first, last, steps), std::log(sum), 1e-6);
  }
  logits[3] = INFINITY;   // damaged weights: the token's own
  CHECK_EQUAL(nearLogProbOf(logits, 2, -1.5f, 0, 39, 2), -1.5f);
}
