#pragma once
#include <memory>
#include <string>

#include "device/device.h"

namespace pg {

// "auto", "cpu", "cuda" or "metal"; threads: 0 = defaultThreads(); isa: the CPU's kernel table, empty: the best
// that computes rightly. Fails with deviceUnavailable, saying why.
std::unique_ptr<Device> makeDevice(const std::string& name, int threads, const std::string& isa = {});

}  // namespace pg
