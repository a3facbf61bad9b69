#pragma once
#include <memory>
#include <string>

#include "device/device.h"

namespace pg {

// "auto", "cpu", "cuda" or "metal"; threads: 0 = defaultThreads(). Fails with deviceUnavailable, saying why.
std::unique_ptr<Device> makeDevice(const std::string& name, int threads);

}  // namespace pg
