#include "serve/load/make_device.h"

#include <algorithm>
#include <cstdlib>

#include "base/thread_pool.h"
#include "cpu/cpu_device.h"
#include "cpu/cpu_info.h"
#include "serve/load/devices.h"
#include "serve/load/load_plan.h"

namespace pg {
namespace {

// The part before a number: "cuda" of "cuda:1".
std::string kindOf(const std::string& device) { return device.substr(0, device.find(':')); }

std::string namesOf(const DeviceList& list) {
  std::string names;
  for (const DeviceEntry& entry : list.devices)
    names += (names.empty() ? "" : ", ") + ("\"" + entry.device + "\" (" + entry.name + ")");
  return names;
}

// Metal's driver has never met a Mac: nobody gets it who did not ask for it.
bool isChosenByItself(const DeviceEntry& entry) { return entry.device != "metal"; }

// Those that `wanted` may mean, the one with most multiprocessors first.
std::vector<DeviceEntry> candidates(const DeviceList& list, const std::string& wanted) {
  std::vector<DeviceEntry> found;
  for (const DeviceEntry& entry : list.devices)
    if ((wanted == "auto" && isChosenByItself(entry)) || wanted == entry.device || wanted == kindOf(entry.device))
      found.push_back(entry);
  std::stable_sort(found.begin(), found.end(), [](const DeviceEntry& a, const DeviceEntry& b) {
    return std::pair(a.problem.empty(), a.processors) > std::pair(b.problem.empty(), b.processors);
  });
  return found;
}

// One that holds the model. Fails with the reason of the first that does not.
std::unique_ptr<Device> firstThatFits(const std::vector<DeviceEntry>& found, const LoadOptions& options) {
  const LoadPlan plan = planLoad(options);
  std::exception_ptr first;
  for (const DeviceEntry& entry : found) {
    try {
      if (entry.problem.empty() && entry.freeBytes > 0 && plan.total() > entry.freeBytes)
        fail(Code::outOfMemory, entry.name, " does not hold this model: ", plan.advice(entry.freeBytes));
      return openGpu(entry, options.cudaKernels);
    } catch (const Error&) {
      if (!first) first = std::current_exception();
    }
  }
  std::rethrow_exception(first);
}

std::unique_ptr<Device> chooseGpu(const LoadOptions& options) {
  const std::string kind = options.device == "auto" ? "" : kindOf(options.device);
  const DeviceList list = listGpus(kind, options.cudaKernels != nullptr);
  const std::vector<DeviceEntry> found = candidates(list, options.device);
  if (!found.empty()) return firstThatFits(found, options);
  if (options.device == "auto")
    fail(Code::deviceUnavailable, "No GPU is used: ",
         list.devices.empty() ? list.problem : "Metal has not been run on a Mac yet; device: 'metal' tries it");
  if (list.devices.empty())
    fail(Code::deviceUnavailable, "Device \"", options.device, "\" is not there: ", list.problem);
  fail(Code::deviceUnavailable, "Device \"", options.device, "\" is not there. There is ", namesOf(list));
}

}  // namespace

std::unique_ptr<Device> makeCpu(int threads, const std::string& isa) {
  const Kernels* kernels = isa.empty() ? &chooseKernels() : kernelsFor(isa);
  if (!kernels) fail(Code::deviceUnavailable, "This machine runs no instruction set \"", isa, "\"");
  return std::make_unique<CpuDevice>(*kernels, threads > 0 ? threads : defaultThreads());
}

ChosenDevice chooseDevice(const LoadOptions& asked) {
  LoadOptions options = asked;
  if (const char* named = std::getenv("PALIGEMMA_DEVICE");
      named && *named && options.device == "auto" && options.isa.empty()) {
    options.device = named;
    if (kindOf(named) != "cuda" && options.device != "cpu" && options.device != "metal" &&
        options.device != "cuda-emulated" && options.device != "metal-emulated" && options.device != "auto")
      fail(Code::invalidOption, "Expected auto, cpu, cuda, cuda:1 or metal for PALIGEMMA_DEVICE but received \"", named,
           "\"");
  }
  if (options.device == "cpu") return {makeCpu(options.threads, options.isa), {}};
  if (options.device != "auto") return {chooseGpu(options), {}};
  // who names an instruction set means the CPU
  if (!options.isa.empty()) return {makeCpu(options.threads, options.isa), {}};
  try {
    return {chooseGpu(options), {}};
  } catch (const Error& error) {
    // what is wrong with the files, loading says
    return {makeCpu(options.threads), error.code() == Code::deviceUnavailable || error.code() == Code::outOfMemory
                                          ? error.message()
                                          : std::string()};
  }
}

}  // namespace pg
