#pragma once
// Which instruction sets this machine and its operating system allow, and the kernel table to use.
#include <span>
#include <string>
#include <vector>

#include "cpu/kernels/common/kernels.h"

namespace pg {

// Best last, but for those that nobody has timed yet, which come behind; always holds "scalar".
std::vector<std::string> supportedIsas();

// A table that computes wrongly on this machine, with the kernels that do.
struct BrokenTable {
  std::string isa;
  std::vector<std::string> kernels;
};

struct KernelChoice {
  const Kernels* kernels = nullptr;
  std::vector<BrokenTable> broken;   // better ones that were passed over
};

// The last of the tables, best last, that agrees with the scalar table on small inputs; else the first.
KernelChoice lastSound(std::span<const Kernels* const> tables);

// Among the supported and timed tables; or up to the one that PALIGEMMA_ISA names (fails with invalidOption where it
// cannot run here). Each is checked once a process.
const KernelChoice& kernelChoice();
inline const Kernels& chooseKernels() { return *kernelChoice().kernels; }
const Kernels* kernelsFor(const std::string& isa);  // nullptr: not built or not supported here

}  // namespace pg
