#pragma once
// Kernels of fake_cuda: what a module's text says of them, and how they run.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "gpu/emulator/kernel_table.h"
#include "gpu/emulator/simt.h"

namespace pg::fake {

inline constexpr unsigned kSharedMemory = 48 << 10, kSharedMemoryOptIn = 99 << 10;

struct Function {
  std::string name;
  const gpu::EmulatedKernel* kernel = nullptr;   // none: it is only noted
  unsigned allowedShared = kSharedMemory;
};

// Whether a kernel's parameters in PTX are the emulator's: bytes of the first, and how many pointers.
inline bool hasParametersOf(const std::string& head, const gpu::EmulatedKernel& kernel) {
  size_t count = 0;
  for (size_t at = head.find(".param"); at != std::string::npos; at = head.find(".param", at + 1)) ++count;
  const size_t size = head.find("_param_0[");
  const size_t bytes = size == std::string::npos ? 4 : size_t(std::atoll(head.c_str() + size + 9));
  if (count == kernel.buffers + 1 && bytes == kernel.argsBytes) return true;
  std::fprintf(stderr, "%s: %zu parameters, the first of %zu bytes\n", kernel.name, count, bytes);
  return false;
}

// A module has the kernels that its text names: "[name]" in tests' own, ".entry name(...)" in PTX.
inline const Function* functionOf(const std::string& image, const std::string& name) {
  static std::map<std::string, Function> known;
  const gpu::EmulatedKernel* kernel = gpu::cudaKernels().find(name);
  if (image.find("[" + name + "]") == std::string::npos) {
    const size_t entry = image.find(".entry " + name + "(");
    if (entry == std::string::npos || !kernel) return nullptr;
    if (!hasParametersOf(image.substr(entry, image.find(')', entry) - entry), *kernel)) return nullptr;
  }
  return &known.try_emplace(name, Function{name, kernel}).first->second;
}

class Run {
 public:
  const Function* function;

  Run(const Function* f, gpu::Size3 groups, gpu::Size3 size, unsigned shared, void** parameters)
      : function(f), groups_(groups), size_(size), shared_(shared) {
    args_.resize(f->kernel ? f->kernel->argsBytes : sizeof(unsigned));
    std::memcpy(args_.data(), parameters[0], args_.size());
    for (size_t i = 0; f->kernel && i < f->kernel->buffers; ++i)
      buffers_.push_back(*static_cast<uint64_t*>(parameters[i + 1]));
  }

  unsigned firstWord() const {
    unsigned word = 0;
    std::memcpy(&word, args_.data(), sizeof word);
    return word;
  }

  // CUDA's answer to a launch that cannot be, or 0
  int refusal() const {
    const auto &g = groups_, &s = size_;
    if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7fffffff || g.y > 65535 || g.z > 65535) return 1;
    if (s.x == 0 || s.y == 0 || s.z == 0 || shared_ > function->allowedShared) return 1;
    if (function->kernel && uint64_t(s.x) * s.y * s.z > function->kernel->maxThreads) return 701;
    return 0;
  }

  int carryOut() const {
    if (!function->kernel) return 0;
    thread_local gpu::simt::Runner runner;
    const gpu::simt::Launch launch{function->kernel->name,
                                   [this] { function->kernel->run(args_.data(), buffers_.data()); },
                                   groups_,
                                   size_,
                                   shared_,
                                   kSharedMemoryOptIn};
    try {
      for (uint32_t z = 0; z < groups_.z; ++z)
        for (uint32_t y = 0; y < groups_.y; ++y)
          for (uint32_t x = 0; x < groups_.x; ++x) runner.run(launch, {x, y, z}, gpu::simt::Order::forward);
      return 0;
    } catch (const Error& error) {
      std::fprintf(stderr, "%s\n", error.message().c_str());
      return 719;
    }
  }

 private:
  gpu::Size3 groups_, size_;
  unsigned shared_;
  std::vector<uint8_t> args_;
  std::vector<uint64_t> buffers_;
};
using Runs = std::vector<Run>;

}  // namespace pg::fake
