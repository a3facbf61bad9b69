#pragma once
// Fork-join for compute: the caller works too; workers spin briefly between loops, then park.
#include <cstdint>
#include <memory>

namespace pg {

class ThreadPool {
 public:
  explicit ThreadPool(int threads);  // >= 1; threads - 1 workers are started, or fewer where the system refuses them
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;

  // Calls body(begin, end, worker) over [0, count) in chunks of `grain`; returns when all are done. Each thread goes
  // through a run of its own, then helps the others from their ends. Chunk boundaries depend on count and grain alone,
  // so results cannot depend on the number of threads. worker is 0..threads-1. The body must not call
  // forRange. What it throws, forRange throws when all chunks have ended; the others run all the same.
  template <class Body>
  void forRange(int64_t count, int64_t grain, const Body& body) {
    run(
        count, grain,
        [](const void* context, int64_t begin, int64_t end, int worker) {
          (*static_cast<const Body*>(context))(begin, end, worker);
        },
        &body);
  }

 private:
  using Chunk = void (*)(const void* context, int64_t begin, int64_t end, int worker);
  void run(int64_t count, int64_t grain, Chunk chunk, const void* context);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Physical cores this process may use: affinity mask and cgroup quota respected, SMT siblings counted once; at least 1.
int defaultThreads();

}  // namespace pg
