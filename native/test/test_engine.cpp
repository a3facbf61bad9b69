#include <atomic>
#include <thread>

#include "base/thread_pool.h"
#include "check.h"
#include "engine_fixture.h"

using namespace pg;
using pg::test::codeOf;
using pg::test::endOf;
using pg::test::EngineFixture;
using pg::test::Listener;

TEST(engine_generates_the_same_for_any_number_of_threads) {
  std::vector<std::pair<int32_t, float>> first;
  for (int threads : {1, 2, 3, 7}) {
    EngineFixture f({.threads = threads});
    const auto tokens = f.run(f.request("what is this", 20));
    CHECK_EQUAL(tokens.size(), size_t(20));
    if (first.empty()) first = tokens;
    CHECK(tokens == first);
  }
}

TEST(engine_with_more_threads_than_cores_gives_the_same_bits_beside_busy_threads) {
  const int cores = defaultThreads();
  std::vector<std::pair<int32_t, float>> first;
  {
    EngineFixture f({.threads = cores});
    first = f.run(f.request("what is this", 20));
    CHECK_EQUAL(first.size(), size_t(20));
  }
  // neighbours that never sleep, one a core: every loop of the engine ends with threads that wait for a descheduled one
  std::atomic<bool> enough{false};
  std::vector<std::thread> neighbours;
  for (int i = 0; i < cores; ++i)
    neighbours.emplace_back([&] {
      while (!enough.load(std::memory_order_relaxed)) {}
    });
  std::vector<bool> same;
  for (int factor : {1, 2, 4}) {
    EngineFixture f({.threads = factor * cores});
    same.push_back(f.run(f.request("what is this", 20)) == first);
  }
  enough = true;
  for (std::thread& neighbour : neighbours) neighbour.join();
  CHECK((same == std::vector<bool>{true, true, true}));
}

TEST(engine_answers_are_the_same_alone_and_in_company) {
  for (int together : {5, 12}) {
    EngineFixture f({.maxSequences = together});
    std::vector<Request> requests;
    for (int i = 0; i < 14; ++i)
      requests.push_back(f.request(std::string(size_t(1 + i * 11), 'a') + " cat", 3 + i * 5, i % 3));
    std::vector<std::vector<std::pair<int32_t, float>>> alone;
    for (const Request& r : requests) alone.push_back(f.run(r));
    std::vector<uint32_t> jobs;
    for (const Request& r : requests) jobs.push_back(f.engine->submit(r));
    for (size_t i = 0; i < jobs.size(); ++i) CHECK(EngineFixture::tokens(f.listener.wait(jobs[i])) == alone[i]);
  }
}

TEST(engine_scores_what_it_generates) {
  EngineFixture f;
  Request r = f.request("hello", 1);
  const auto tokens = f.run(r);
  r.task = Score{.suffix = "cat"};
  const auto events = f.listener.wait(f.engine->submit(r));
  CHECK_EQUAL(endOf(events).scored.size(), size_t(4));  // c a t <eos>
  CHECK_EQUAL(endOf(events).scored.back().choice.id, 1);
  for (const auto& token : endOf(events).scored) CHECK(token.choice.logProb < 0 && std::isfinite(token.choice.logProb));
}

TEST(engine_encodes_a_picture_once_and_takes_it_back) {
  EngineFixture f;
  Request encode = f.request("", 1);
  encode.task = EncodeImage{};
  const auto encoded = f.listener.wait(f.engine->submit(encode));
  CHECK_EQUAL(endOf(encoded).embedding.size(), size_t(4 * 32));
  Request r = f.request("what", 8);
  const auto expected = f.run(r);
  r.images[0].pixels.clear();
  r.images[0].embedding = endOf(encoded).embedding;
  CHECK(f.run(r) == expected);
}

TEST(engine_cancels_a_running_and_a_queued_job) {
  EngineFixture f({.maxSequences = 1});
  const uint32_t running = f.engine->submit(f.request("long", 200)), queued = f.engine->submit(f.request("later", 200));
  f.listener.waitForToken(running);
  f.engine->cancel(queued);
  f.engine->cancel(running);
  for (uint32_t job : {queued, running}) {
    const Event last = f.listener.wait(job).back();
    // a fast machine may have finished the first before the flag was seen
    CHECK(last.is<ErrorEvent>() ? codeOf(last) == Code::aborted : job == running);
  }
  CHECK_EQUAL(f.run(f.request("after", 3)).size(), size_t(3));
}

TEST(engine_stop_ends_every_job_and_later_ones) {
  EngineFixture f({.maxSequences = 2});
  std::vector<uint32_t> jobs;
  for (int i = 0; i < 6; ++i) jobs.push_back(f.engine->submit(f.request("long", 200)));
  f.listener.waitForToken(jobs[0]);
  f.engine->stop();
  jobs.push_back(f.engine->submit(f.request("late", 1)));
  for (uint32_t job : jobs) {
    const Event last = f.listener.wait(job).back();
    CHECK(last.is<EndEvent>() || codeOf(last) == Code::disposed);
  }
  CHECK(codeOf(f.listener.wait(jobs.back()).back()) == Code::disposed);
  CHECK(f.listener.stopped);
}

TEST(engine_refuses_bad_requests_and_goes_on) {
  EngineFixture f({.contextSize = 64});
  const auto refusal = [&](Request r) { return codeOf(f.listener.wait(f.engine->submit(std::move(r))).back()); };
  CHECK(refusal(f.request(std::string(100, 'a'))) == Code::promptTooLong);
  Request wrong = f.request("x");
  wrong.images[0].pixels.pop_back();
  CHECK(refusal(wrong) == Code::imageInvalid);
  // generation ends where the context does
  const auto tokens = f.run(f.request("x", 1000));
  CHECK_EQUAL(int64_t(tokens.size()), int64_t(64 - 4 - 3));
}

TEST(engine_reports_a_missing_file_and_still_answers) {
  Listener listener;
  Engine engine({.path = "/nonexistent/model.gguf"}, [&](Event e) { listener.post(std::move(e)); });
  CHECK(codeOf(listener.wait(0).back()) == Code::modelNotFound);
  engine.stop();
  CHECK(codeOf(listener.wait(engine.submit({})).back()) == Code::disposed);
}

TEST(engine_attention_windows_differ_only_beyond_the_window) {
  std::vector<std::vector<std::pair<int32_t, float>>> results;
  for (auto window : {AttentionWindow::none, AttentionWindow::suffix, AttentionWindow::causal}) {
    EngineFixture f({.attentionWindow = window});
    results.push_back(f.run(f.request("a longer prompt than eight tokens", 6)));
  }
  CHECK(results[0] != results[1]);
  CHECK(results[1] != results[2]);
}

TEST(engine_same_prefix_again_gives_the_same_bits) {
  EngineFixture f({.maxSequences = 4});
  const Request r = f.request("shared prompt", 20);
  const auto first = f.run(r);
  CHECK(f.run(r) == first);  // from the kept prefix
  std::vector<uint32_t> jobs;
  for (int i = 0; i < 6; ++i) jobs.push_back(f.engine->submit(r));
  for (uint32_t job : jobs) CHECK(EngineFixture::tokens(f.listener.wait(job)) == first);
  // another picture or prompt is another prefix
  Request other = r;
  other.images[0].pixels[0] ^= 255;
  CHECK(f.run(other) != first);
  CHECK(f.run(f.request("shared prompts", 20)) != first);
  CHECK(f.run(r) == first);
}

TEST(engine_scores_the_same_with_a_kept_prefix) {
  EngineFixture f;
  Request r = f.request("score this", 1);
  const auto score = [&](const std::string& suffix) {
    r.task = Score{.suffix = suffix};
    std::vector<float> values;
    const auto events = f.listener.wait(f.engine->submit(r));
    for (const auto& token : endOf(events).scored) values.push_back(token.choice.logProb);
    return values;
  };
  const auto cold = score("a longer suffix than eight tokens");
  CHECK_EQUAL(cold.size(), size_t(34));
  CHECK(score("b") != score("c"));
  CHECK(score("a longer suffix than eight tokens") == cold);
  CHECK_EQUAL(score("").size(), size_t(1));
}

// Two tokens: the greedy first token is among the beams, so its best continuation is a candidate. (Longer greedy
// outputs may be pruned on the way.)
TEST(engine_beams_score_no_worse_than_greedy) {
  EngineFixture f({.maxSequences = 4});
  Request r = f.request("beams", 2);
  const auto sum = [](const std::vector<std::pair<int32_t, float>>& tokens) {
    double total = 0;
    for (const auto& [id, logProb] : tokens) total += double(logProb);
    return total;
  };
  const auto greedy = f.run(r);
  r.generate().beams = 4;
  const auto beams = f.run(r);
  CHECK_EQUAL(beams.size(), size_t(2));
  CHECK(sum(beams) >= sum(greedy) - 1e-4);
  r.generate().maxTokens = 9;
  const auto longer = f.run(r);
  CHECK_EQUAL(longer.size(), size_t(9));
  CHECK(f.run(r) == longer);
  r.generate().beams = 5;
  CHECK(codeOf(f.listener.wait(f.engine->submit(r)).back()) == Code::invalidOption);
}

// Without log-probabilities the device chooses among the logits, or hands up the few that can be drawn.
TEST(engine_picks_the_same_tokens_on_the_device_as_from_all_logits) {
  EngineFixture f;
  const SamplingOptions options[] = {
      {},
      {.temperature = 0.9f, .topK = 1, .seed = 1},
      {.temperature = 1.5f, .topK = 5, .seed = 2},
      {.temperature = 0.02f, .topK = 40, .seed = 3},  // fewer than 40 that count: drawn in the order of their ids
      {.temperature = 3, .topK = 60, .topP = 0.8f, .minP = 0.01f, .seed = 4},
      {.temperature = 3, .topK = 255, .seed = 5},
      {.temperature = 3, .topK = 256, .seed = 6},  // more than a device gives
      {.temperature = 1, .topP = 0.9f, .seed = 7},
      {.temperature = 1, .topK = 9, .repeatPenalty = 1.4f, .seed = 8},
  };
  for (const SamplingOptions& sampling : options) {
    std::vector<int32_t> ids[2];
    for (const int logProbs : {-1, 0}) {
      Request r = f.request("what", 24);
      r.generate().sampling = sampling;
      r.generate().sampling.logProbs = logProbs;
      for (const auto& [id, logProb] : f.run(std::move(r))) {
        CHECK_EQUAL(std::isnan(logProb), logProbs < 0);
        ids[logProbs + 1].push_back(id);
      }
    }
    CHECK_EQUAL(ids[0].size(), size_t(24));
    CHECK(ids[0] == ids[1]);
  }
}
