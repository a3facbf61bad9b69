#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace pg {
namespace {

inline void pause() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
  asm volatile("yield");
#endif
}

// About 50 us: longer than the gap between two ops, shorter than anything a neighbour would notice.
constexpr int kSpins = 2000;

}  // namespace

struct ThreadPool::Impl {
  // High half: number of the loop; low half: chunks nobody has claimed. A claim is a compare-and-swap, so a worker
  // that wakes late can neither claim from a finished loop nor read a job that is being replaced.
  std::atomic<uint64_t> state{0};
  std::atomic<int64_t> done{0};
  Chunk chunk = nullptr;           // these four are stable while a claimed chunk is unfinished
  const void* context = nullptr;
  int64_t count = 0, grain = 1;
  int64_t chunks = 0;

  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<int> sleepers{0};
  std::atomic<bool> stopping{false};
  std::vector<std::thread> workers;

  static uint32_t unclaimed(uint64_t s) { return uint32_t(s); }

  // Runs chunks until none is left.
  void drain(int worker) {
    uint64_t s = state.load(std::memory_order_acquire);
    while (unclaimed(s) > 0) {
      if (!state.compare_exchange_weak(s, s - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      const int64_t begin = (chunks - int64_t(unclaimed(s))) * grain;
      chunk(context, begin, std::min(begin + grain, count), worker);
      done.fetch_add(1, std::memory_order_acq_rel);
      s = state.load(std::memory_order_acquire);
    }
  }

  void work(int worker) {
    while (!stopping.load(std::memory_order_acquire)) {
      drain(worker);
      int spins = 0;
      while (unclaimed(state.load(std::memory_order_acquire)) == 0 && ++spins < kSpins) pause();
      if (spins < kSpins) continue;
      std::unique_lock lock(mutex);
      sleepers.fetch_add(1, std::memory_order_seq_cst);
      wake.wait(lock, [&] { return stopping.load() || unclaimed(state.load(std::memory_order_seq_cst)) > 0; });
      sleepers.fetch_sub(1, std::memory_order_seq_cst);
    }
  }
};

ThreadPool::ThreadPool(int threads) : impl_(std::make_unique<Impl>()) {
  for (int i = 1; i < threads; ++i) impl_->workers.emplace_back([impl = impl_.get(), i] { impl->work(i); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stopping.store(true);
  }
  impl_->wake.notify_all();
  for (auto& worker : impl_->workers) worker.join();
}

int ThreadPool::threads() const { return int(impl_->workers.size()) + 1; }

void ThreadPool::run(int64_t count, int64_t grain, Chunk chunk, const void* context) {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t chunks = (count + grain - 1) / grain;
  assert(chunks < int64_t(1) << 32);
  Impl& p = *impl_;
  if (chunks == 1 || p.workers.empty()) {
    for (int64_t i = 0; i < chunks; ++i) chunk(context, i * grain, std::min((i + 1) * grain, count), 0);
    return;
  }
  p.chunk = chunk;
  p.context = context;
  p.count = count;
  p.grain = grain;
  p.chunks = chunks;
  p.done.store(0, std::memory_order_relaxed);
  const uint64_t loop = (p.state.load(std::memory_order_relaxed) >> 32) + 1;
  p.state.store(loop << 32 | uint64_t(chunks), std::memory_order_seq_cst);
  if (p.sleepers.load(std::memory_order_seq_cst) > 0) {
    { std::lock_guard lock(p.mutex); }
    p.wake.notify_all();
  }
  p.drain(0);
  // What is left is being run by workers: short unless one was descheduled, then give it our core.
  for (int spins = 0; p.done.load(std::memory_order_acquire) < chunks; ++spins) {
    if (spins < kSpins) pause();
    else std::this_thread::yield();
  }
}

}  // namespace pg
