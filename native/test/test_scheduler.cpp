// Many requests at once: whose turn it is, and that company changes nothing.
#include <string_view>

#include "check.h"
#include "cpu/cpu_info.h"
#include "engine_fixture.h"
#include "far_device.h"
#include "serve/scheduler.h"

using namespace pg;
using pg::test::codeOf;
using pg::test::EngineFixture;

namespace {

// A mix as a server sees it: long and short prompts and answers, greedy, sampled, beams, two pictures, none, scores.
std::vector<Request> mixed(EngineFixture& f) {
  std::vector<Request> list;
  for (int i = 0; i < 14; ++i) {
    Request r = f.request(std::string(size_t(1 + i * 11 % 60), char('a' + i)), 1 + i * 7 % 37,
                          i % 5 == 0   ? 0
                          : i % 4 == 1 ? 2
                                       : 1);
    SamplingOptions& sampling = r.generate().sampling;
    if (i % 3 == 1) sampling.temperature = 0.9f, sampling.topK = 20, sampling.seed = uint64_t(i);
    if (i % 6 == 2) r.generate().beams = 2 + i % 2;
    if (i % 5 == 4) sampling.repeatPenalty = 1.3f;
    if (i % 7 == 3) r.task = Score{.suffix = std::string(size_t(i), 'x')};
    list.push_back(std::move(r));
  }
  return list;
}

std::vector<std::pair<int32_t, float>> resultOf(const std::vector<Event>& events) {
  auto list = EngineFixture::tokens(events);
  const EndEvent* end = events.back().get<EndEvent>();
  if (!end) return list;
  for (const TokenEvent& token : end->scored) list.push_back({token.choice.id, token.choice.logProb});
  return list;
}

// Time passes only with the layers that it computes, by as much as the test says: whose turn it is becomes exact.
struct TimedTap : Tap {
  static constexpr double kVisionLayer = 3, kPrefillLayer = 2;   // ms
  double decodeLayer = 0;                                        // of each sequence
  double admission = 0, decoding = 0;                            // ms spent so far
  int pictureLayers = 0, feedForwards = 0;                       // of vision for each picture; of many rows of text

  void op(const char* name, ConstView out) override {
    if (std::string_view(name) == "denseAttention") admission += kVisionLayer, ++pictureLayers;
    if (std::string_view(name) == "geglu" && out.rows > 8) ++feedForwards;
    if (std::string_view(name) == "attention") (out.rows > 1 ? admission += kPrefillLayer : decoding += decodeLayer);
  }
  Clock::time_point now() const {
    return Clock::time_point(
        std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double, std::milli>(admission + decoding)));
  }
};

// A scheduler without an engine's thread, stepped by the test.
struct TurnFixture {
  static constexpr int32_t kLayers = 12;
  static constexpr double kAdmission = kLayers * (TimedTap::kVisionLayer + TimedTap::kPrefillLayer);  // ms of a request
  std::string path = test::temporaryPath("turns.gguf");
  TimedTap tap, *time = &tap;  // of the model's device
  std::unique_ptr<Model> model;
  std::atomic<bool> stopping{false};
  std::map<uint32_t, int> tokens;  // of each job
  bool failed = false;
  std::vector<uint32_t> failures;  // jobs
  std::unique_ptr<Scheduler> scheduler;
  int pictureBytes;

  // Pictures of 70 px have 25 tokens: enough to pass together.
  explicit TurnFixture(int maxSequences = 8, int32_t imageSize = 28) : pictureBytes(imageSize * imageSize * 3) {
    test::TinyModel tiny;
    tiny.layers = tiny.visionLayers = kLayers;
    tiny.imageSize = imageSize;
    // as CPUs where requests pass together
    const DeviceLimits limits{.stepRows = 8, .blockRows = 512, .jobs = 256, .topK = 256, .jointRows = 576};
    auto device = std::make_unique<test::FarDevice>(chooseKernels(), 1, limits);
    device->setTap(time);
    model = std::make_unique<Model>(LoadOptions{.path = tiny.write(path), .maxSequences = 8}, std::move(device));
    scheduler = std::make_unique<Scheduler>(
        *model, maxSequences, stopping,
        [this](Event event) {
          if (event.is<TokenEvent>()) ++tokens[event.job];
          if (event.is<ErrorEvent>()) failed = true, failures.push_back(event.job);
        },
        [this] { return time->now(); });
  }
  ~TurnFixture() { std::remove(path.c_str()); }

  // Its pictures are its own, so that nothing is known of them before.
  std::shared_ptr<Job> submit(uint32_t id, int pictures = 1, std::string prompt = "picture", bool throughput = false,
                              int64_t maxTokens = 200) {
    auto job = std::make_shared<Job>();
    job->id = id;
    job->request.prompt = std::move(prompt);
    job->request.throughput = throughput;
    job->request.generate().maxTokens = maxTokens;
    job->request.generate().ignoreEos = true;
    job->request.images.resize(size_t(pictures));
    for (int i = 0; i < pictures; ++i)
      for (int p = 0; p < pictureBytes; ++p)
        job->request.images[size_t(i)].pixels.push_back(uint8_t(p * (int(id) * 8 + i + 7) % 251));
    scheduler->enqueue(job);
    return job;
  }
  // The order of first tokens until all of `count` have theirs.
  std::vector<uint32_t> order(size_t count) {
    std::vector<uint32_t> started;
    while (started.size() < count && !failed) {
      scheduler->step();
      for (const auto& [id, n] : tokens)
        if (std::find(started.begin(), started.end(), id) == started.end()) started.push_back(id);
    }
    return started;
  }
};

}  // namespace

TEST(scheduler_admits_for_as_long_as_two_tokens_of_those_that_run_take) {
  for (double layer : {0.01, 0.55, 1.1, 4.3}) {
    TurnFixture f;
    f.time->decodeLayer = layer;
    const double token = layer * TurnFixture::kLayers;
    f.submit(1);
    while (f.tokens[1] == 0) {
      // nobody waits for a token: a step is a layer, so that a cancel is seen soon
      const double before = f.time->admission;
      f.scheduler->step();
      CHECK(f.time->admission - before <= TimedTap::kVisionLayer);
    }
    f.scheduler->step();
    f.submit(2);
    while (f.tokens[2] == 0) {
      const double before = f.time->admission;
      const int tokens = f.tokens[1];
      f.scheduler->step();
      const double turn = f.time->admission - before;
      CHECK_EQUAL(f.tokens[1], tokens + 1);  // a turn ends with a token of each that runs
      CHECK(turn < 2 * token + TimedTap::kVisionLayer);
      if (f.tokens[2] == 0) CHECK(turn >= 2 * token);
    }
    CHECK_CLOSE(f.time->admission, 2 * TurnFixture::kAdmission, 1e-9);
    CHECK(!f.failed);
  }
}

TEST(scheduler_gives_admission_two_thirds_of_the_time_while_many_wait) {
  TurnFixture f;
  f.time->decodeLayer = 0.55;
  for (uint32_t id = 1; id <= 8; ++id) f.submit(id);
  while (f.tokens[8] == 0) f.scheduler->step();
  CHECK(!f.failed);
  CHECK_CLOSE(f.time->admission, 8 * TurnFixture::kAdmission, 1e-9);
  // a turn is twice as long as the token before it, but for the last one, which the last layer ends
  const double lastToken = 8 * f.time->decodeLayer * TurnFixture::kLayers;
  CHECK(f.time->decoding <= f.time->admission / 2 + 2 * lastToken);
  for (uint32_t id = 1; id < 8; ++id) CHECK(f.tokens[id] > f.tokens[id + 1]);
}

TEST(scheduler_admits_all_that_are_for_throughput_before_any_of_them_goes_on) {
  TurnFixture f(4);
  f.time->decodeLayer = 0.55;
  for (uint32_t id = 1; id <= 6; ++id) f.submit(id, 1, "picture", true, id == 2 ? 5 : 200);
  while (f.tokens[4] == 0) {
    const double before = f.time->admission;
    f.scheduler->step();
    // one layer of those that pass together, so that a cancel is seen soon
    CHECK(f.time->admission - before <= 4 * TimedTap::kPrefillLayer);
    for (uint32_t id = 1; id < 4; ++id)
      if (f.tokens[4] == 0) CHECK(f.tokens[id] <= 1);
  }
  // no slot is free: tokens without a pause, until the shortest one's is, and then no step before it is taken
  while (f.tokens[2] < 5) f.scheduler->step();
  CHECK_CLOSE(f.time->admission, 4 * TurnFixture::kAdmission, 1e-9);
  for (uint32_t id : {1, 3, 4}) CHECK_EQUAL(f.tokens[id], 5);
  while (f.tokens[5] == 0) f.scheduler->step();
  CHECK_CLOSE(f.time->admission, 5 * TurnFixture::kAdmission, 1e-9);
  for (uint32_t id : {1, 3, 4}) CHECK(f.tokens[id] <= 6);
  CHECK(!f.failed);
}

TEST(scheduler_keeps_a_stream_flowing_among_those_for_throughput) {
  TurnFixture f;
  f.time->decodeLayer = 0.55;
  f.submit(1);
  for (uint32_t id = 2; id <= 8; ++id) f.submit(id, 1, "picture", true);
  while (f.tokens[1] == 0) f.scheduler->step();
  while (f.tokens[8] == 0) {
    const int tokens = f.tokens[1];
    const double before = f.time->admission, token = 8 * f.time->decodeLayer * TurnFixture::kLayers;
    f.scheduler->step();
    CHECK_EQUAL(f.tokens[1], tokens + 1);
    CHECK(f.time->admission - before < 2 * token + TimedTap::kVisionLayer);
  }
  CHECK(!f.failed);
}

TEST(scheduler_gives_those_that_run_a_token_however_many_short_ones_come) {
  TurnFixture f(3);
  f.time->decodeLayer = 0.55;
  f.submit(1, 1, "picture", true);
  for (uint32_t id = 2; id <= 40; ++id) f.submit(id, 0, std::to_string(id), true, 1);  // end with their admission
  while (f.tokens[40] == 0) f.scheduler->step();
  // a few overtake it; then there is a token after every three of them and the beginning of a fourth
  CHECK(f.tokens[1] >= 8);
  CHECK(!f.failed);
}

TEST(scheduler_admits_those_for_throughput_in_one_pass) {
  constexpr int kLayers = TurnFixture::kLayers;
  TurnFixture f(4, 70);
  for (uint32_t id = 1; id <= 4; ++id) f.submit(id, 1, "what is it", true);
  while (f.tokens[4] == 0) f.scheduler->step();
  // a feed-forward for all four, but for the last layer, of which each needs its last rows alone
  CHECK_EQUAL(f.time->feedForwards, kLayers - 1 + 4);
  CHECK_EQUAL(f.time->pictureLayers, 4 * kLayers);
  for (uint32_t id = 1; id <= 4; ++id) CHECK_EQUAL(f.tokens[id], 2);
  CHECK(!f.failed);
}

TEST(scheduler_computes_what_requests_of_a_group_share_once) {
  constexpr int kLayers = TurnFixture::kLayers;
  TurnFixture f(8, 70);
  const auto first = f.submit(1, 1, "what is it", true);
  f.submit(2, 1, "and where is it", true)->request.images = first->request.images;
  f.submit(3, 0, "no picture, but as many words", true);
  f.submit(4, 1, "what is it", true)->request.images = first->request.images;  // the first again: it waits for it
  f.submit(5, 1, "what is it", true);
  while (f.tokens[5] == 0) f.scheduler->step();
  CHECK_EQUAL(f.time->pictureLayers, 2 * kLayers);
  CHECK_EQUAL(f.time->feedForwards, kLayers - 1 + 3 + kLayers);
  CHECK_EQUAL(f.tokens[1], f.tokens[2]);
  CHECK(f.tokens[4] > 0);
  CHECK(!f.failed);
}

TEST(scheduler_joins_no_more_than_there_are_slots_and_rows_for) {
  constexpr int kLayers = TurnFixture::kLayers;
  TurnFixture f(3, 70);
  for (uint32_t id = 1; id <= 4; ++id) f.submit(id, 1, "what is it", true, 3);
  while (f.tokens[4] == 0) f.scheduler->step();
  CHECK_EQUAL(f.time->feedForwards, kLayers - 1 + 3 + kLayers);
  // 225 tokens of a picture: two of them have room
  TurnFixture large(8, 210);
  for (uint32_t id = 1; id <= 3; ++id) large.submit(id, 1, "what is it", true);
  while (large.tokens[3] == 0) large.scheduler->step();
  CHECK_EQUAL(large.time->feedForwards, kLayers - 1 + 2 + kLayers);
  CHECK(!f.failed && !large.failed);
}

TEST(scheduler_lets_members_leave_a_group_and_ends_it_when_all_have) {
  for (int layers : {0, 5, 20}) {
    TurnFixture f(4, 70);
    std::vector<std::shared_ptr<Job>> jobs;
    for (uint32_t id = 1; id <= 3; ++id) jobs.push_back(f.submit(id, 1, "what is it", true));
    for (int i = 0; i < layers; ++i) f.scheduler->step();
    jobs[0]->cancel.set = true;
    f.scheduler->step();
    CHECK(f.failed);  // it was told
    jobs[2]->cancel.set = true;
    while (f.tokens[2] == 0) f.scheduler->step();
    CHECK(f.tokens[1] == 0 && f.tokens[3] == 0);

    jobs.clear();
    for (uint32_t id = 4; id <= 5; ++id) jobs.push_back(f.submit(id, 1, "and where is it", true));
    for (int i = 0; i < layers; ++i) f.scheduler->step();
    const double before = f.time->admission;
    for (const auto& job : jobs) job->cancel.set = true;
    f.scheduler->step();
    CHECK_EQUAL(f.time->admission, before);
    CHECK(f.tokens[4] == 0 && f.tokens[5] == 0);
  }
}

TEST(scheduler_admits_the_members_of_a_group_that_fails_one_by_one) {
  constexpr int kLayers = TurnFixture::kLayers;
  TurnFixture f(4, 70);
  f.submit(1, 1, "what is it", true);
  f.submit(2, 1, "what is it", true)->request.images[0] = {.pixels = {}, .embedding = std::vector<float>(25 * 32, NAN)};
  f.submit(3, 1, "what is it", true);
  while (f.tokens[3] == 0) f.scheduler->step();
  CHECK((f.failures == std::vector<uint32_t>{2}));
  CHECK(f.tokens[1] > 0 && f.tokens[2] == 0);
  CHECK_EQUAL(f.time->pictureLayers, 2 * kLayers);  // what the group had encoded is not encoded again
}

TEST(scheduler_ends_alone_the_member_that_a_group_fails_by) {
  test::TinyModel tiny;
  tiny.imageSize = 70;
  EngineFixture f({.maxSequences = 6}, tiny);
  std::vector<Request> requests;
  for (int i = 0; i < 5; ++i) {
    requests.push_back(f.request("what is it " + std::to_string(i), 6));
    requests.back().images[0].pixels[0] = uint8_t(i);
    requests.back().throughput = true;
  }
  requests[1].images[0] = {.pixels = {}, .embedding = std::vector<float>(25 * 32, NAN)};  // goes through every check
  requests[3].generate().beams = 7;
  std::vector<std::vector<std::pair<int32_t, float>>> alone;
  for (const Request& r : requests) alone.push_back(resultOf(f.listener.wait(f.engine->submit(r))));
  for (const bool busy : {true, false}) {
    if (busy) f.engine->submit(f.request("they wait for this one", 20));
    std::vector<uint32_t> jobs;
    for (const Request& r : requests) jobs.push_back(f.engine->submit(r));
    for (size_t i = 0; i < jobs.size(); ++i) {
      const auto events = f.listener.wait(jobs[i]);
      CHECK(resultOf(events) == alone[i]);
      CHECK_EQUAL(events.back().is<ErrorEvent>(), i == 1 || i == 3);
    }
    CHECK(codeOf(f.listener.wait(jobs[3]).back()) == Code::invalidOption);
  }
}

TEST(scheduler_admits_a_short_request_before_long_ones_that_wait) {
  TurnFixture f;
  for (uint32_t id = 1; id <= 5; ++id) f.submit(id, 4);
  f.scheduler->step();  // the first is under way
  f.submit(6, 1);
  f.submit(7, 0, "hi");
  f.submit(8, 4);
  CHECK(f.order(8) == (std::vector<uint32_t>{1, 7, 6, 2, 3, 4, 5, 8}));
  CHECK(!f.failed);
}

TEST(scheduler_keeps_the_order_of_requests_of_like_length) {
  TurnFixture f;
  for (uint32_t id = 1; id <= 8; ++id) f.submit(id, id % 2 ? 3 : 2);
  CHECK(f.order(8) == (std::vector<uint32_t>{1, 2, 3, 4, 5, 6, 7, 8}));
}

TEST(scheduler_lets_nobody_be_overtaken_for_ever) {
  TurnFixture f;
  f.submit(1, 4);
  f.scheduler->step();  // under way
  f.submit(2, 4);  // waits: 18 rows
  for (uint32_t id = 3; id <= 40; ++id) f.submit(id, 0, std::string(8, char('a' + id % 26)) + std::to_string(id));
  const std::vector<uint32_t> order = f.order(8);
  CHECK(!f.failed);
  // short ones of three rows go first, until together they are as long as it
  CHECK(order == (std::vector<uint32_t>{1, 3, 4, 5, 6, 7, 8, 2}));
}

namespace {

void checkCompany(const test::TinyModel& tiny, bool throughput) {
  EngineFixture f({.maxSequences = 4}, tiny);
  std::vector<Request> requests = mixed(f);
  for (Request& r : requests) r.throughput = throughput;
  std::vector<std::vector<std::pair<int32_t, float>>> alone;
  for (const Request& r : requests) {
    alone.push_back(resultOf(f.listener.wait(f.engine->submit(r))));
    CHECK(!alone.back().empty());
  }
  for (size_t round = 0; round < 5; ++round) {
    std::vector<std::pair<size_t, uint32_t>> jobs;  // index in requests, job
    std::vector<std::pair<size_t, uint32_t>> victims;
    for (size_t n = 0; n < requests.size(); ++n) {
      const size_t i = (n * 5 + round * 3) % requests.size();
      jobs.push_back({i, f.engine->submit(requests[i])});
      if (n % 4 == round % 4) {
        // one that would run for long, cancelled in the middle of whatever it is at
        Request endless = requests[1];
        endless.generate().maxTokens = 100000;
        victims.push_back({1, f.engine->submit(endless)});
      }
      if (n % 3 == 2) f.listener.waitForToken(jobs[n / 2].second);  // the next ones join when others are under way
      if (n % 4 == 3 && !victims.empty()) f.engine->cancel(victims.back().second);
    }
    for (const auto& [i, job] : victims) f.engine->cancel(job);
    for (const auto& [i, job] : jobs)
      if (resultOf(f.listener.wait(job)) != alone[i])
        throw test::Failure{"request " + std::to_string(i), "differs in company, round " + std::to_string(round)};
    for (const auto& [i, job] : victims) {
      const auto events = f.listener.wait(job);
      CHECK(events.back().is<EndEvent>() || codeOf(events.back()) == Code::aborted);
      // what had come before is what comes alone
      const auto tokens = EngineFixture::tokens(events);
      for (size_t t = 0; t < std::min(tokens.size(), alone[1].size()); ++t) CHECK(tokens[t] == alone[1][t]);
    }
  }
}

}  // namespace

TEST(scheduler_gives_each_request_the_same_bits_whoever_joins_leaves_or_is_cancelled) {
  checkCompany({}, false);
  // large enough to pass together
  test::TinyModel tiny;
  tiny.imageSize = 70;
  for (const bool gemma1 : {false, true}) tiny.gemma1 = gemma1, checkCompany(tiny, true);
}

TEST(scheduler_admits_in_order_and_lets_no_small_request_overtake_a_large_one) {
  EngineFixture f({.maxSequences = 4});
  std::vector<uint32_t> order;
  for (int i = 0; i < 3; ++i) order.push_back(f.engine->submit(f.request("early", 40 + 20 * i)));
  f.listener.waitForToken(order[0]);
  Request wide = f.request("wide", 6);
  wide.generate().beams = 4;
  order.push_back(f.engine->submit(wide));  // waits until all three are done
  for (int i = 0; i < 8; ++i) order.push_back(f.engine->submit(f.request("late", 3)));  // would fit at once
  for (uint32_t job : order) CHECK(f.listener.wait(job).back().is<EndEvent>());
  CHECK((f.listener.started == order));
  // the early ones, by length; then the wide one, before any of the late ones
  CHECK((std::vector<uint32_t>(f.listener.ended.begin(), f.listener.ended.begin() + 4) ==
         std::vector<uint32_t>(order.begin(), order.begin() + 4)));
}

TEST(scheduler_gives_cache_pages_back_when_requests_end_or_are_cancelled) {
  // one sequence's pages: a leak of any of them would make a later request fail
  EngineFixture f({.contextSize = 256, .maxSequences = 1});
  for (int i = 0; i < 6; ++i) {
    Request r = f.request(std::string(size_t(30 + i), 'p'), 100000);
    r.images[0].pixels[0] = uint8_t(i);
    const uint32_t job = f.engine->submit(r);
    f.listener.waitForToken(job);
    if (i % 2 == 0) f.engine->cancel(job);
    const Event last = f.listener.wait(job).back();
    CHECK(last.is<EndEvent>() || codeOf(last) == Code::aborted);
  }
}

TEST(engine_refuses_more_beams_than_slots_without_waiting_for_them) {
  EngineFixture f({.maxSequences = 2});
  const uint32_t running = f.engine->submit(f.request("a long answer", 100000));
  f.listener.waitForToken(running);
  Request r = f.request("beams", 2);
  r.generate().beams = 3;
  const uint32_t tooMany = f.engine->submit(r);
  const Event refused = f.listener.wait(tooMany).back();
  CHECK(codeOf(refused) == Code::invalidOption);
  CHECK(refused.get<ErrorEvent>()->message.find("maxSequences (2)") != std::string::npos);
  CHECK(f.listener.wait(running).back().is<EndEvent>());
  CHECK((f.listener.ended == std::vector<uint32_t>{tooMany, running}));
}
