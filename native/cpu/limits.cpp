#include "cpu/limits.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <memory>

namespace pg {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

constexpr size_t kReadBytes = size_t(256) << 20;   // beyond any last-level cache share of a process

}  // namespace

// The best of short rounds: one that another process interrupts does not count.
double measureInt8(const Kernels& kernels, ThreadPool& pool, double seconds) {
  if (!kernels.peak8) return 0;
  const int threads = pool.threads();
  double best = 0;
  const double end = now() + seconds;
  do {
    std::atomic<int64_t> ops{0};
    const double start = now();
    pool.forRange(threads * 4, 1, [&](int64_t, int64_t, int) { ops += int64_t(kernels.peak8(4000)); });
    best = std::max(best, double(ops.load()) / (now() - start));
  } while (now() < end);
  return best;
}

double measureRead(const Kernels& kernels, ThreadPool& pool, const uint8_t* buffer, size_t bytes, int passes) {
  constexpr size_t kPiece = size_t(1) << 20;
  const size_t pieces = bytes / kPiece;
  std::atomic<uint64_t> seen{0};
  double best = 0;
  for (int pass = 0; pass < passes; ++pass) {
    const double start = now();
    pool.forRange(int64_t(pieces), 1,
                  [&](int64_t i, int64_t, int) { seen += kernels.read(buffer + size_t(i) * kPiece, kPiece); });
    best = std::max(best, double(pieces * kPiece) / (now() - start));
  }
  return best + (seen.load() == 1);
}

Limits measureLimits(const Kernels& kernels, ThreadPool& pool) {
  Limits limits;
  limits.int8OpsPerSecond = measureInt8(kernels, pool, 0.1);
  const std::unique_ptr<uint8_t[]> buffer(new uint8_t[kReadBytes]);
  pool.forRange(int64_t(kReadBytes >> 20), 1, [&](int64_t i, int64_t, int) {
    std::memset(buffer.get() + (size_t(i) << 20), int(i & 127), size_t(1) << 20);
  });
  limits.readBytesPerSecond = measureRead(kernels, pool, buffer.get(), kReadBytes, 5);
  return limits;
}

}  // namespace pg
