#pragma once
#include <string>

#include "device/device.h"

namespace pg {

// A handful of small ops whose results are known: the name of the first that a GPU, its driver or our kernels for it
// compute wrongly, or nothing. Takes milliseconds.
std::string wrongOp(Device& device);

}  // namespace pg
