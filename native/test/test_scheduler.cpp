// Many requests at once: whose turn it is, and that company changes nothing.
#include "check.h"
#include "engine_fixture.h"

using namespace pg;
using Fixture = pg::test::EngineFixture;

namespace {

// A mix as a server sees it: long and short prompts and answers, greedy, sampled, beams, two pictures, none, scores.
std::vector<Request> mixed(Fixture& f) {
  std::vector<Request> list;
  for (int i = 0; i < 14; ++i) {
    Request r = f.request(std::string(size_t(1 + i * 11 % 60), char('a' + i)), 1 + i * 7 % 37, i % 5 == 0 ? 0 : i % 4 == 1 ? 2 : 1);
    if (i % 3 == 1) r.sampling.temperature = 0.9f, r.sampling.topK = 20, r.sampling.seed = uint64_t(i);
    if (i % 6 == 2) r.beams = 2 + i % 2;
    if (i % 7 == 3) r.kind = Request::Kind::score, r.suffix = std::string(size_t(i), 'x');
    if (i % 5 == 4) r.sampling.repeatPenalty = 1.3f;
    list.push_back(std::move(r));
  }
  return list;
}

std::vector<std::pair<int32_t, float>> resultOf(const std::vector<Event>& events) {
  auto list = Fixture::tokens(events);
  for (const TokenEvent& token : events.back().scored) list.push_back({token.choice.id, token.choice.logProb});
  return list;
}

}  // namespace

TEST(scheduler_gives_each_request_the_same_bits_whoever_joins_leaves_or_is_cancelled) {
  Fixture f({.maxSequences = 4});
  const std::vector<Request> requests = mixed(f);
  std::vector<std::vector<std::pair<int32_t, float>>> alone;
  for (const Request& r : requests) {
    alone.push_back(resultOf(f.listener.wait(f.engine->submit(r))));
    CHECK(!alone.back().empty());
  }
  for (size_t round = 0; round < 5; ++round) {
    std::vector<std::pair<size_t, uint32_t>> jobs;   // index in requests, job
    std::vector<std::pair<size_t, uint32_t>> victims;
    for (size_t n = 0; n < requests.size(); ++n) {
      const size_t i = (n * 5 + round * 3) % requests.size();
      jobs.push_back({i, f.engine->submit(requests[i])});
      if (n % 4 == round % 4) {
        // one that would run for long, cancelled in the middle of whatever it is at
        Request endless = requests[1];
        endless.maxTokens = 100000;
        victims.push_back({1, f.engine->submit(endless)});
      }
      if (n % 3 == 2) f.listener.waitForToken(jobs[n / 2].second);   // the next ones join when others are under way
      if (n % 4 == 3 && !victims.empty()) f.engine->cancel(victims.back().second);
    }
    for (const auto& [i, job] : victims) f.engine->cancel(job);
    for (const auto& [i, job] : jobs)
      if (resultOf(f.listener.wait(job)) != alone[i]) throw test::Failure{"request " + std::to_string(i), "differs in company, round " + std::to_string(round)};
    for (const auto& [i, job] : victims) {
      const auto events = f.listener.wait(job);
      CHECK(events.back().kind == Event::Kind::error ? events.back().code == Code::aborted : events.back().kind == Event::Kind::end);
      // what had come before is what comes alone
      const auto tokens = Fixture::tokens(events);
      for (size_t t = 0; t < std::min(tokens.size(), alone[1].size()); ++t) CHECK(tokens[t] == alone[1][t]);
    }
  }
}

TEST(scheduler_admits_in_order_and_lets_no_small_request_overtake_a_large_one) {
  Fixture f({.maxSequences = 4});
  std::vector<uint32_t> order;
  for (int i = 0; i < 3; ++i) order.push_back(f.engine->submit(f.request("early", 40 + 20 * i)));
  f.listener.waitForToken(order[0]);
  Request wide = f.request("wide", 6);
  wide.beams = 4;
  order.push_back(f.engine->submit(wide));   // waits until all three are done
  for (int i = 0; i < 8; ++i) order.push_back(f.engine->submit(f.request("late", 3)));   // would fit at once
  for (uint32_t job : order) CHECK(f.listener.wait(job).back().kind == Event::Kind::end);
  CHECK((f.listener.started == order));
  // the early ones, by length; then the wide one, before any of the late ones
  CHECK((std::vector<uint32_t>(f.listener.ended.begin(), f.listener.ended.begin() + 4) == std::vector<uint32_t>(order.begin(), order.begin() + 4)));
}

TEST(scheduler_gives_cache_pages_back_when_requests_end_or_are_cancelled) {
  // one sequence's pages: a leak of any of them would make a later request fail
  Fixture f({.contextSize = 256, .maxSequences = 1});
  for (int i = 0; i < 6; ++i) {
    Request r = f.request(std::string(size_t(30 + i), 'p'), 100000);
    r.images[0].pixels[0] = uint8_t(i);
    const uint32_t job = f.engine->submit(r);
    f.listener.waitForToken(job);
    if (i % 2 == 0) f.engine->cancel(job);
    const Event last = f.listener.wait(job).back();
    CHECK(last.kind == Event::Kind::end || last.code == Code::aborted);
  }
}

TEST(engine_refuses_more_beams_than_slots_without_waiting_for_them) {
  Fixture f({.maxSequences = 2});
  const uint32_t running = f.engine->submit(f.request("a long answer", 100000));
  f.listener.waitForToken(running);
  Request r = f.request("beams", 2);
  r.beams = 3;
  const uint32_t tooMany = f.engine->submit(r);
  const Event refused = f.listener.wait(tooMany).back();
  CHECK(refused.code == Code::invalidOption);
  CHECK(refused.message.find("maxSequences (2)") != std::string::npos);
  CHECK(f.listener.wait(running).back().kind == Event::Kind::end);
  CHECK((f.listener.ended == std::vector<uint32_t>{tooMany, running}));
}
