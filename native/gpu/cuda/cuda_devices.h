#pragma once
#include <string>
#include <vector>

#include "gpu/cuda/cuda_api.h"

namespace pg::gpu::cuda {

struct Card {
  int index = 0;            // as in device "cuda:1"
  std::string name;
  int capability = 0;       // 75, 80, 90, 120
  size_t memoryBytes = 0, freeBytes = 0;  // free: 0 where the driver does not say
  int processors = 1;
  uint32_t sharedMemory = 0;  // that a group may take
  bool integrated = false;    // shares the host's memory
  std::string problem;        // why our kernels do not run on it, or empty

  std::string capabilityText() const { return std::to_string(capability / 10) + "." + std::to_string(capability % 10); }
};

// All that the driver shows, usable or not. Fails with deviceUnavailable where there is none.
std::vector<Card> listCards(bool hasKernels);

// Whether the driver shows any card; takes no memory of it.
bool hasCards();

}  // namespace pg::gpu::cuda
