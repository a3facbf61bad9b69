#include "gpu/cuda/cuda_devices.h"

#include "base/error.h"

namespace pg::gpu::cuda {
namespace {

constexpr const char* kNoKernels =
    "our CUDA kernels, prebuilds/cuda/kernels.br, were not found: a bundler left them behind (docs/deploy.md), or this "
    "package was made without nvcc (npm run build:ptx makes them)";
constexpr int kOldestCapability = 75;  // Turing: the first whose tensor cores take our products

size_t freeMemory(const Api& api, Device device) {
  Context context = nullptr;
  if (api.retainContext(&context, device) != kSuccess) return 0;
  size_t free = 0, total = 0;
  if (api.pushContext(context) == kSuccess) {
    if (api.memoryInfo(&free, &total) != kSuccess) free = 0;
    api.popContext(&context);
  }
  api.releaseContext(device);
  return free;
}

Card describe(const Api& api, int index, bool hasKernels) {
  Card card{.index = index};
  Device device = 0;
  if (const Result result = api.device(&device, index); result != kSuccess) {
    card.problem = api.text(result);
    return card;
  }
  const auto attribute = [&](Attribute which) {
    int value = 0;
    api.attribute(&value, which, device);
    return value;
  };
  char name[256] = {};
  api.deviceName(name, sizeof name - 1, device);
  card.name = name;
  card.capability = attribute(major) * 10 + attribute(minor);
  card.processors = attribute(multiprocessors);
  card.sharedMemory = uint32_t(attribute(sharedMemoryOptIn));
  card.integrated = attribute(integrated) != 0;
  api.totalMemory(&card.memoryBytes, device);
  if (card.capability < kOldestCapability)
    card.problem = card.name + " has compute capability " + card.capabilityText() + "; 7.5 or newer is needed";
  else if (!hasKernels) card.problem = kNoKernels;
  else card.freeBytes = freeMemory(api, device);
  return card;
}

}  // namespace

std::vector<Card> listCards(bool hasKernels) {
  const Api& api = Api::load();
  int count = 0;
  const Result result = api.deviceCount(&count);
  if (result != kSuccess || count == 0)
    fail(Code::deviceUnavailable, "The NVIDIA driver shows no GPU", result == kSuccess ? "" : ": " + api.text(result));
  std::vector<Card> cards;
  for (int i = 0; i < count; ++i) cards.push_back(describe(api, i, hasKernels));
  return cards;
}

bool hasCards() {
  try {
    int count = 0;
    return Api::load().deviceCount(&count) == kSuccess && count > 0;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace pg::gpu::cuda
