#include "serve/load/devices.h"

#include <algorithm>
#include <cstdlib>

#include "base/thread_pool.h"
#include "cpu/cpu_info.h"
#include "gpu/cuda/cuda_devices.h"
#include "gpu/cuda/cuda_driver.h"
#include "gpu/gpu_device.h"
#include "serve/load/check_device.h"
#ifdef PG_METAL
#include "gpu/metal/metal_driver.h"
#endif
#ifdef PG_EMULATED
#include "gpu/emulator/emulated_driver.h"
#endif

namespace pg {
namespace {

void addCudaCards(DeviceList& list, bool hasKernels) {
  try {
    for (const gpu::cuda::Card& card : gpu::cuda::listCards(hasKernels))
      list.devices.push_back({"cuda:" + std::to_string(card.index), card.name,
                              "compute capability " + card.capabilityText(), card.memoryBytes, card.freeBytes,
                              card.processors, card.problem});
  } catch (const Error& error) {
    list.problem = error.message();
  }
}

void addMetal(DeviceList& list) {
#ifdef PG_METAL
  try {
    const gpu::metal::Gpu gpu = gpu::metal::systemGpu();
    list.devices.push_back({"metal", gpu.name, "Metal", gpu.memoryBytes, gpu.freeBytes, 1, gpu.problem});
  } catch (const Error& error) {
    list.problem = error.message();
  }
#elif defined(__APPLE__)
  list.problem = "this build has no Metal: it was made without Apple's SDK";
#else
  list.problem = "Metal exists on macOS only";
#endif
}

bool isEmulated(const std::string& kind) { return kind == "cuda-emulated" || kind == "metal-emulated"; }

#ifdef PG_EMULATED
gpu::EmulatorOptions emulatorOptions(const std::string& kind) {
  const bool metal = kind == "metal-emulated";
  gpu::EmulatorOptions options{.kind = kind,
                               .kernels = metal ? &gpu::metalKernels() : &gpu::cudaKernels(),
                               .threads = std::min(4, defaultThreads()),
                               .groupMemoryBytes = uint32_t(metal ? 32 : 48) << 10,
                               .unified = metal};
  const auto setting = [](const char* name) -> const char* {
    const char* value = std::getenv(name);
    return value && *value ? value : nullptr;
  };
  if (const char* bytes = setting("PALIGEMMA_EMULATED_MEMORY")) options.memoryBytes = std::strtoull(bytes, nullptr, 10);
  if (const char* count = setting("PALIGEMMA_EMULATED_LOSS")) options.launchesUntilLost = std::atoll(count);
  return options;
}
#endif

std::unique_ptr<gpu::Driver> openDriver(const DeviceEntry& entry, [[maybe_unused]] const CudaKernels& kernels) {
#ifdef PG_EMULATED
  if (isEmulated(entry.device)) return std::make_unique<gpu::EmulatedDriver>(emulatorOptions(entry.device));
#endif
#ifdef PG_METAL
  if (entry.device == "metal") return gpu::metal::openSystemGpu();
#endif
  for (const gpu::cuda::Card& card : gpu::cuda::listCards(kernels != nullptr))
    if (entry.device == "cuda:" + std::to_string(card.index))
      return std::make_unique<gpu::cuda::CudaDriver>(card,
                                                     kernels ? gpu::cuda::readPtx(kernels) : gpu::cuda::PtxKernels());
  fail(Code::deviceUnavailable, "Device \"", entry.device, "\" is gone");
}

}  // namespace

DeviceList listGpus(const std::string& kind, bool hasCudaKernels) {
  DeviceList list;
  if (isEmulated(kind)) {
#ifdef PG_EMULATED
    const gpu::EmulatorOptions options = emulatorOptions(kind);
    list.devices.push_back(
        {kind, "Emulated GPU", "kernels run on the CPU", options.memoryBytes, options.memoryBytes, 4, ""});
#else
    list.problem = "this build has no emulator; npm run build:emulated makes one that has";
#endif
  } else if (kind == "metal") {
    addMetal(list);
  } else if (kind == "cuda") {
    addCudaCards(list, hasCudaKernels);
  } else {
#ifdef __APPLE__
    addMetal(list);   // there is no CUDA
#else
    addCudaCards(list, hasCudaKernels);
#endif
  }
  return list;
}

DeviceList listDevices(bool hasCudaKernels) {
  DeviceList list = listGpus("", hasCudaKernels);
#ifdef PG_EMULATED
  for (const char* kind : {"cuda-emulated", "metal-emulated"})
    for (DeviceEntry& entry : listGpus(kind, hasCudaKernels).devices) list.devices.push_back(std::move(entry));
#endif
  list.devices.push_back({.device = "cpu", .name = chooseKernels().isa, .processors = defaultThreads()});
  return list;
}

bool hasNvidiaCards() { return gpu::cuda::hasCards(); }

std::unique_ptr<Device> openGpu(const DeviceEntry& entry, const CudaKernels& kernels) {
  if (!entry.problem.empty())
    fail(Code::deviceUnavailable, "Device \"", entry.device, "\" cannot be used: ", entry.problem);
  auto device = std::make_unique<gpu::GpuDevice>(openDriver(entry, kernels));
  if (const std::string wrong = wrongOp(*device); !wrong.empty())
    fail(Code::deviceUnavailable, "Device \"", entry.device, "\" (", entry.name, ", ", entry.detail, ") computes ",
         wrong, " wrongly. Update its driver; if that does not help, please report it");
  return device;
}

}  // namespace pg
