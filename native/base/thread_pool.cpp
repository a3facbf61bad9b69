#include "base/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <cassert>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "base/math.h"
#include "base/thread_room.h"

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
  // Chunks [begin, end) that nobody has claimed of a thread's share: begin in the low half, end in the high half. The
  // owner takes them from the front, one long run through memory; who has finished takes from the back of others. A
  // claim is a compare-and-swap, so a worker that wakes late can neither claim from a finished loop nor read a job that
  // is being replaced.
  struct alignas(64) Share {
    std::atomic<uint64_t> chunks{0};
  };

  explicit Impl(int threads) : shares(size_t(threads)) {}

  std::vector<Share> shares;  // of threads that were refused: stay empty
  std::atomic<uint32_t> loop{0};
  std::atomic<int64_t> done{0};
  Chunk chunk = nullptr;  // these three are stable while a claimed chunk is unfinished
  const void* context = nullptr;
  int64_t count = 0, grain = 1;

  std::mutex mutex;
  std::condition_variable wake;
  std::atomic<int> sleepers{0};
  std::atomic<bool> stopping{false};
  std::vector<std::thread> workers;
  std::exception_ptr failure;  // the first of a loop's, guarded by mutex

  void drainShare(Share& share, int worker, bool own) {
    uint64_t s = share.chunks.load(std::memory_order_acquire);
    for (;;) {
      const uint32_t begin = uint32_t(s), end = uint32_t(s >> 32);
      if (begin >= end) return;
      const uint64_t left = own ? uint64_t(end) << 32 | (begin + 1) : uint64_t(end - 1) << 32 | begin;
      if (!share.chunks.compare_exchange_weak(s, left, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      const int64_t first = int64_t(own ? begin : end - 1) * grain;
      try {
        chunk(context, first, std::min(first + grain, count), worker);
      } catch (...) {
        std::lock_guard lock(mutex);
        if (!failure) failure = std::current_exception();
      }
      done.fetch_add(1, std::memory_order_acq_rel);
      s = share.chunks.load(std::memory_order_acquire);
    }
  }

  // Runs chunks until none is left.
  void drain(int worker) {
    drainShare(shares[size_t(worker)], worker, true);
    for (size_t i = 1; i < shares.size(); ++i) drainShare(shares[(size_t(worker) + i) % shares.size()], worker, false);
  }

  void work(int worker) {
    while (!stopping.load(std::memory_order_acquire)) {
      const uint32_t seen = loop.load(std::memory_order_acquire);
      drain(worker);
      int spins = 0;
      while (loop.load(std::memory_order_acquire) == seen && ++spins < kSpins) pause();
      if (spins < kSpins) continue;
      std::unique_lock lock(mutex);
      sleepers.fetch_add(1, std::memory_order_seq_cst);
      wake.wait(lock, [&] { return stopping.load() || loop.load(std::memory_order_seq_cst) != seen; });
      sleepers.fetch_sub(1, std::memory_order_seq_cst);
    }
  }

  // `count` workers, or as many as the system gives.
  void start(size_t count) {
    stopping.store(false);
    workers.reserve(count);
    try {
      while (workers.size() < count && roomForThread())
        workers.emplace_back([this, i = int(workers.size()) + 1] { work(i); });
    } catch (const std::exception&) {
      return;  // std::system_error, std::bad_alloc: those that run are enough
    }
  }

  void stop() {
    {
      std::lock_guard lock(mutex);
      stopping.store(true);
    }
    wake.notify_all();
    for (auto& worker : workers) worker.join();
    workers.clear();
  }
};

ThreadPool::ThreadPool(int threads) : impl_(std::make_unique<Impl>(threads)) {
  const size_t wanted = size_t(threads) - 1;
  impl_->start(wanted);
  const size_t given = impl_->workers.size();
  if (given == wanted) return;
  // A limit on processes or memory. The rest of the program needs threads, too, and some libraries abort where they get
  // none: a quarter is given back.
  impl_->stop();
  impl_->start(given - (given + 3) / 4);
}

ThreadPool::~ThreadPool() { impl_->stop(); }

int ThreadPool::threads() const { return int(impl_->workers.size()) + 1; }

void ThreadPool::run(int64_t count, int64_t grain, Chunk chunk, const void* context) {
  if (count <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int64_t chunks = ceilDiv(count, grain);
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
  p.done.store(0, std::memory_order_relaxed);
  const int64_t threads = int64_t(p.workers.size()) + 1;
  for (int64_t t = 0; t < threads; ++t)
    p.shares[size_t(t)].chunks.store(uint64_t(chunks * (t + 1) / threads) << 32 | uint64_t(chunks * t / threads),
                                     std::memory_order_release);
  p.loop.fetch_add(1, std::memory_order_seq_cst);
  if (p.sleepers.load(std::memory_order_seq_cst) > 0) {
    {
      std::lock_guard lock(p.mutex);
    }
    p.wake.notify_all();
  }
  p.drain(0);
  // What is left is being run by workers: short unless one was descheduled, then give it our core.
  for (int spins = 0; p.done.load(std::memory_order_acquire) < chunks; ++spins) {
    if (spins < kSpins) pause();
    else std::this_thread::yield();
  }
  std::unique_lock lock(p.mutex);
  if (const std::exception_ptr failure = std::exchange(p.failure, nullptr)) {
    lock.unlock();
    std::rethrow_exception(failure);
  }
}

}  // namespace pg
