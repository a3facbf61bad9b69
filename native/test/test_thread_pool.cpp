#include <atomic>
#include <new>
#include <vector>

#include "base/thread_pool.h"
#include "base/thread_room.h"
#include "check.h"

using pg::ThreadPool;

TEST(thread_pool_runs_every_index_once) {
  for (int threads : {1, 2, 5}) {
    ThreadPool pool(threads);
    for (int64_t count : {0, 1, 7, 64, 1000})
      for (int64_t grain : {1, 3, 64, 5000}) {
        std::vector<std::atomic<int>> seen(static_cast<size_t>(count));
        std::atomic<bool> workerOk{true};
        pool.forRange(count, grain, [&](int64_t begin, int64_t end, int worker) {
          if (worker < 0 || worker >= threads || begin % grain != 0) workerOk = false;
          for (int64_t i = begin; i < end; ++i) ++seen[size_t(i)];
        });
        CHECK(workerOk);
        for (auto& n : seen) CHECK_EQUAL(n.load(), 1);
      }
  }
}

TEST(thread_pool_survives_many_short_loops_and_long_pauses) {
  ThreadPool pool(3);
  std::atomic<int64_t> sum{0};
  for (int i = 0; i < 20000; ++i) pool.forRange(4, 1, [&](int64_t begin, int64_t, int) { sum += begin; });
  CHECK_EQUAL(sum.load(), int64_t(20000 * 6));
}

TEST(thread_pool_hands_what_a_body_throws_to_the_caller_and_goes_on) {
  for (int threads : {1, 3}) {
    ThreadPool pool(threads);
    bool thrown = false;
    try {
      pool.forRange(1000, 1, [](int64_t begin, int64_t, int) {
        if (begin % 100 == 7) throw std::bad_alloc();
      });
    } catch (const std::bad_alloc&) {
      thrown = true;
    }
    CHECK(thrown);
    std::atomic<int64_t> sum{0};
    pool.forRange(4, 1, [&](int64_t begin, int64_t, int) { sum += begin; });
    CHECK_EQUAL(sum.load(), 6);
  }
}

TEST(thread_pool_counts_at_least_one_core) { CHECK(pg::defaultThreads() >= 1); }

TEST(thread_room_is_what_can_be_started) {
  CHECK_EQUAL(pg::threadRoom(0, "nobody"), 0);
  CHECK_EQUAL(pg::threadRoom(20, "nobody"), 20);
}
