#pragma once
// Which instruction sets this machine and its operating system allow, and the kernel table to use.
#include <string>
#include <vector>

#include "cpu/kernels/common/kernels.h"

namespace pg {

// Best last; always holds "scalar".
std::vector<std::string> supportedIsas();

// The best supported table, or the one PALIGEMMA_ISA names (fails with invalidOption where it cannot run here).
const Kernels& chooseKernels();
const Kernels* kernelsFor(const std::string& isa);  // nullptr: not built or not supported here

}  // namespace pg
