#pragma once
// CUDA's driver over the library that plays NVIDIA's.
#include <dlfcn.h>

#include <cstdlib>
#include <memory>
#include <string>

#include "check.h"
#include "fake_cuda.h"
#include "gpu/cuda/cuda_devices.h"
#include "gpu/cuda/cuda_driver.h"
#include "gpu/emulator/kernel_table.h"

namespace pg::test {

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
inline gpu::cuda::PtxKernels namedKernels() {
  std::string file;
  for (const gpu::EmulatedKernel& kernel : gpu::cudaKernels().all()) {
    const std::string text = std::string("[") + kernel.name + "]";
    file += std::string(kernel.name) + " 75 " + std::to_string(text.size()) + "\n" + text + '\0';
  }
  return gpu::cuda::readPtx(std::make_shared<const std::string>(std::move(file)));
}

inline std::unique_ptr<gpu::Driver> cudaOverLibrary() {
  return std::make_unique<gpu::cuda::CudaDriver>(gpu::cuda::listCards(true).at(0), namedKernels());
}

}  // namespace pg::test
