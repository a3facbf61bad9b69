#pragma once
#include <memory>
#include <string>

#include "device/device.h"
#include "serve/load/load_options.h"

namespace pg {

// The CPU. threads: 0 = defaultThreads(); isa: its kernel table, empty: the best that computes rightly.
std::unique_ptr<Device> makeCpu(int threads, const std::string& isa = {});

struct ChosenDevice {
  std::unique_ptr<Device> device;
  std::string note;   // "auto": why it is not another
};

// What options.device names, "auto" by PALIGEMMA_DEVICE: "auto", "cpu", "cuda", "cuda:1", "metal". Fails with
// deviceUnavailable, saying why, and with outOfMemory where the model does not fit, saying what would; "auto" goes on
// to the CPU.
ChosenDevice chooseDevice(const LoadOptions& options);

}  // namespace pg
