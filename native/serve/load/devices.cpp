#include "serve/load/devices.h"

#include <algorithm>
#include <cstdlib>

#include "base/thread_pool.h"
#include "cpu/cpu_info.h"
#include "gpu/cuda/cuda_devices.h"
#include "gpu/cuda/cuda_driver.h"
#include "gpu/gpu_device.h"
#include "serve/load/check_device.h"
#ifdef PG_EMULATED
#include "gpu/emulator/emulated_driver.h"
#endif

namespace pg {
namespace {

void addCudaCards(DeviceList& list) {
  if (gpu::cuda::ptxKernels().empty()) {
    list.problem = "this build has no CUDA kernels: it was made without nvcc (npm run build:ptx makes them)";
    return;
  }
  try {
    for (const gpu::cuda::Card& card : gpu::cuda::listCards())
      list.devices.push_back({"cuda:" + std::to_string(card.index), card.name,
                              "compute capability " + card.capabilityText(), card.memoryBytes, card.freeBytes,
                              card.processors, card.problem});
  } catch (const Error& error) {
    list.problem = error.message();
  }
}

#ifdef PG_EMULATED
gpu::EmulatorOptions emulatorOptions() {
  gpu::EmulatorOptions options{.threads = std::min(4, defaultThreads())};
  const auto setting = [](const char* name) -> const char* {
    const char* value = std::getenv(name);
    return value && *value ? value : nullptr;
  };
  if (const char* bytes = setting("PALIGEMMA_EMULATED_MEMORY")) options.memoryBytes = std::strtoull(bytes, nullptr, 10);
  if (const char* count = setting("PALIGEMMA_EMULATED_LOSS")) options.launchesUntilLost = std::atoll(count);
  return options;
}
#endif

std::unique_ptr<gpu::Driver> openDriver(const DeviceEntry& entry) {
#ifdef PG_EMULATED
  if (entry.device == "cuda-emulated") return std::make_unique<gpu::EmulatedDriver>(emulatorOptions());
#endif
  for (const gpu::cuda::Card& card : gpu::cuda::listCards())
    if (entry.device == "cuda:" + std::to_string(card.index)) return std::make_unique<gpu::cuda::CudaDriver>(card);
  fail(Code::deviceUnavailable, "Device \"", entry.device, "\" is gone");
}

}  // namespace

DeviceList listGpus(const std::string& kind) {
  DeviceList list;
  if (kind == "cuda-emulated") {
#ifdef PG_EMULATED
    const gpu::EmulatorOptions options = emulatorOptions();
    list.devices.push_back(
        {kind, "Emulated GPU", "kernels run on the CPU", options.memoryBytes, options.memoryBytes, 4, ""});
#else
    list.problem = "this build has no emulator; npm run build:emulated makes one that has";
#endif
  } else if (kind == "metal") {
#ifdef __APPLE__
    list.problem = "this build has no Metal kernels";
#else
    list.problem = "Metal exists on macOS only";
#endif
  } else {
    addCudaCards(list);
  }
  return list;
}

DeviceList listDevices() {
  DeviceList list = listGpus("");
#ifdef PG_EMULATED
  for (DeviceEntry& entry : listGpus("cuda-emulated").devices) list.devices.push_back(std::move(entry));
#endif
  list.devices.push_back({.device = "cpu", .name = chooseKernels().isa, .processors = defaultThreads()});
  return list;
}

std::unique_ptr<Device> openGpu(const DeviceEntry& entry) {
  if (!entry.problem.empty())
    fail(Code::deviceUnavailable, "Device \"", entry.device, "\" cannot be used: ", entry.problem);
  auto device = std::make_unique<gpu::GpuDevice>(openDriver(entry));
  if (const std::string wrong = wrongOp(*device); !wrong.empty())
    fail(Code::deviceUnavailable, "Device \"", entry.device, "\" (", entry.name, ", ", entry.detail, ") computes ",
         wrong, " wrongly. Update its driver; if that does not help, please report it");
  return device;
}

}  // namespace pg
