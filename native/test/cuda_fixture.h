#pragma once
// CUDA's driver over the library that plays NVIDIA's.
#include <dlfcn.h>

#include <cstdlib>
#include <deque>

#include "check.h"
#include "fake_cuda.h"
#include "gpu/cuda/cuda_devices.h"
#include "gpu/cuda/cuda_driver.h"
#include "gpu/emulator/kernel_table.h"

namespace pg::test {

// A text that was stored as it is, which is deflate's simplest form.
inline std::string stored(const std::string& text) {
  const auto low = char(text.size()), high = char(text.size() >> 8);
  return std::string{'\1', low, high, char(~low), char(~high)} + text;
}

// The library, with everything as new.
inline FakeCuda& freshCuda() {
  setenv("PALIGEMMA_CUDA_LIBRARY", PG_FAKE_CUDA, 1);
  static void* library = dlopen(PG_FAKE_CUDA, RTLD_NOW);
  if (!library) throw Failure{PG_FAKE_CUDA, dlerror()};
  FakeCuda& fake = *reinterpret_cast<decltype(&fakeCuda)>(dlsym(library, "fakeCuda"))();
  fake = {};
  return fake;
}

// All our kernels by their names alone: the library has what they do.
inline std::span<const gpu::cuda::PtxKernel> namedKernels() {
  static std::deque<std::string> texts;
  static std::vector<gpu::cuda::PtxKernel> kernels;
  if (kernels.empty())
    for (const gpu::EmulatedKernel& kernel : gpu::cudaKernels().all()) {
      const std::string text = std::string("[") + kernel.name + "]";
      kernels.push_back({kernel.name, 75, text.size(), texts.emplace_back(stored(text))});
    }
  return kernels;
}

inline std::unique_ptr<gpu::Driver> cudaOverLibrary() {
  return std::make_unique<gpu::cuda::CudaDriver>(gpu::cuda::listCards(namedKernels()).at(0), namedKernels());
}

}  // namespace pg::test
