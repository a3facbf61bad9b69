#pragma once
// A Driver over Apple's Metal; built where there is its SDK (PG_METAL).
#include <memory>
#include <string>

#include "gpu/driver.h"

namespace pg::gpu::metal {

struct Gpu {
  std::string name;
  size_t memoryBytes = 0, freeBytes = 0;   // that programs should use
  std::string problem;                     // why our kernels do not run on it, or empty
};

// The system's GPU. Fails with deviceUnavailable where there is none.
Gpu systemGpu();

// On that GPU. Fails with deviceUnavailable where it has a problem or does not take our kernels.
std::unique_ptr<Driver> openSystemGpu();

}  // namespace pg::gpu::metal
