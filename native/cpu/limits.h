#pragma once
// What this machine can do at best, measured in about a third of a second: the yardsticks of every speed report.
#include "base/thread_pool.h"
#include "cpu/kernels/common/kernels.h"

namespace pg {

struct Limits {
  double readBytesPerSecond = 0;   // from memory, all threads of the pool together
  double int8OpsPerSecond = 0;     // multiplications and additions of the 8-bit kernels; 0: the table has none
};

Limits measureLimits(const Kernels& kernels, ThreadPool& pool);

// The parts, for measuring between other measurements.
double measureInt8(const Kernels& kernels, ThreadPool& pool, double seconds);
double measureRead(const Kernels& kernels, ThreadPool& pool, const uint8_t* buffer, size_t bytes, int passes);

}  // namespace pg
