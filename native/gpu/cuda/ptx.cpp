#include "gpu/cuda/ptx.h"

namespace pg::gpu::cuda {

// PG_HAS_PTX comes from CMake, for compiler caches that do not know what a file once was not there for.
#if defined(PG_HAS_PTX) || __has_include("gpu/cuda/generated/ptx.inc")
#include "gpu/cuda/generated/ptx.inc"

std::span<const PtxKernel> ptxKernels() { return kPtxKernels; }
#else
std::span<const PtxKernel> ptxKernels() { return {}; }
#endif

}  // namespace pg::gpu::cuda
