#pragma once
// The devices of this machine by the names that users say: "cpu", "cuda:0".
#include <memory>
#include <string>
#include <vector>

#include "device/device.h"

namespace pg {

struct DeviceEntry {
  std::string device;         // what loadModel takes
  std::string name;           // of the card, or the processor's instruction set
  std::string detail{};       // "compute capability 9.0"
  uint64_t memoryBytes = 0, freeBytes = 0;  // of a GPU
  int processors = 0;
  std::string problem{};      // why it cannot be used, or empty
};

struct DeviceList {
  std::vector<DeviceEntry> devices;   // GPUs first, then the CPU
  std::string problem;                // why there is no GPU, or empty
};

// What gpu/cuda/ptx.h reads, or null.
using CudaKernels = std::shared_ptr<const std::string>;

// GPUs alone that were asked for by "cuda", "metal" or an emulated kind; "" asks for all that this build knows.
DeviceList listGpus(const std::string& kind, bool hasCudaKernels);
DeviceList listDevices(bool hasCudaKernels);

// Whether there is a card that CUDA's kernels might run on; asks the driver alone.
bool hasNvidiaCards();

// A GPU of listGpus(). Fails with deviceUnavailable where it does not open, or computes wrongly.
std::unique_ptr<Device> openGpu(const DeviceEntry& entry, const CudaKernels& kernels);

}  // namespace pg
