#include "serve/load/make_device.h"

#include "base/thread_pool.h"
#include "cpu/cpu_device.h"
#include "cpu/cpu_info.h"

namespace pg {

std::unique_ptr<Device> makeDevice(const std::string& name, int threads, const std::string& isa) {
  if (name != "auto" && name != "cpu")
    fail(Code::deviceUnavailable, "Device \"", name, "\" is not part of this build. Use device \"cpu\" or \"auto\"");
  const Kernels* kernels = isa.empty() ? &chooseKernels() : kernelsFor(isa);
  if (!kernels) fail(Code::deviceUnavailable, "This machine runs no instruction set \"", isa, "\"");
  return std::make_unique<CpuDevice>(*kernels, threads > 0 ? threads : defaultThreads());
}

}  // namespace pg
