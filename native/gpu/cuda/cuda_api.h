#pragma once
// What we use of CUDA's driver API, declared by us and found at run time: nothing of CUDA is needed to build or to load
// the engine.
#include <cstddef>
#include <cstdint>
#include <string>

namespace pg::gpu::cuda {

using Result = int;
using Device = int;
using Pointer = uint64_t;
using Context = struct ContextTag*;
using Module = struct ModuleTag*;
using Function = struct FunctionTag*;
using Stream = struct StreamTag*;
using Event = struct EventTag*;
using Graph = struct GraphTag*;
using GraphExec = struct GraphExecTag*;
struct GraphUpdateInfo {  // CUgraphExecUpdateResultInfo
  int result;
  void *node, *from;
};

inline constexpr Result kSuccess = 0, kInvalidValue = 1, kNoMemory = 2, kNoDevice = 100, kNotFound = 500,
                        kTooManyResources = 701;
enum Attribute : int { multiprocessors = 16, integrated = 18, major = 75, minor = 76, sharedMemoryOptIn = 97 };
enum JitOption : int { errorLog = 5, errorLogBytes = 6 };
inline constexpr int kMaxDynamicShared = 8;  // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
inline constexpr unsigned kNonBlocking = 1, kNoTiming = 2;  // of streams, of events
inline constexpr int kCaptureThreadLocal = 1;

// CUDA 11.0: the PTX that we embed, and products of bfloat16.
inline constexpr int kOldestDriver = 11000;

// name in the library, name here, parameters
#define PG_CUDA_FUNCTIONS(X)                                                                                        \
  X(cuInit, init, (unsigned flags))                                                                                 \
  X(cuDriverGetVersion, driverVersion, (int* version))                                                              \
  X(cuGetErrorName, errorName, (Result, const char** text))                                                         \
  X(cuGetErrorString, errorString, (Result, const char** text))                                                     \
  X(cuDeviceGetCount, deviceCount, (int* count))                                                                    \
  X(cuDeviceGet, device, (Device*, int ordinal))                                                                    \
  X(cuDeviceGetName, deviceName, (char* name, int bytes, Device))                                                   \
  X(cuDeviceGetAttribute, attribute, (int* value, int attribute, Device))                                           \
  X(cuDeviceTotalMem_v2, totalMemory, (size_t* bytes, Device))                                                      \
  X(cuDevicePrimaryCtxRetain, retainContext, (Context*, Device))                                                    \
  X(cuDevicePrimaryCtxRelease_v2, releaseContext, (Device))                                                         \
  X(cuDevicePrimaryCtxReset_v2, resetContext, (Device))                                                             \
  X(cuCtxPushCurrent_v2, pushContext, (Context))                                                                    \
  X(cuCtxPopCurrent_v2, popContext, (Context*))                                                                     \
  X(cuCtxSynchronize, synchronizeContext, ())                                                                       \
  X(cuMemGetInfo_v2, memoryInfo, (size_t* free, size_t* total))                                                     \
  X(cuMemAlloc_v2, allocate, (Pointer*, size_t bytes))                                                              \
  X(cuMemFree_v2, free, (Pointer))                                                                                  \
  X(cuMemHostAlloc, allocateHost, (void**, size_t bytes, unsigned flags))                                           \
  X(cuMemFreeHost, freeHost, (void*))                                                                               \
  X(cuMemsetD8Async, fill, (Pointer, unsigned char value, size_t bytes, Stream))                                    \
  X(cuMemcpyHtoDAsync_v2, copyToDevice, (Pointer, const void*, size_t bytes, Stream))                               \
  X(cuMemcpyDtoHAsync_v2, copyToHost, (void*, Pointer, size_t bytes, Stream))                                       \
  X(cuMemcpyDtoDAsync_v2, copyOnDevice, (Pointer to, Pointer from, size_t bytes, Stream))                           \
  X(cuStreamCreate, createStream, (Stream*, unsigned flags))                                                        \
  X(cuStreamDestroy_v2, destroyStream, (Stream))                                                                    \
  X(cuStreamSynchronize, synchronize, (Stream))                                                                     \
  X(cuEventCreate, createEvent, (Event*, unsigned flags))                                                           \
  X(cuEventDestroy_v2, destroyEvent, (Event))                                                                       \
  X(cuEventRecord, record, (Event, Stream))                                                                         \
  X(cuEventSynchronize, synchronizeEvent, (Event))                                                                  \
  X(cuModuleLoadDataEx, loadModule, (Module*, const void* image, unsigned options, int* names, void** values))      \
  X(cuModuleUnload, unloadModule, (Module))                                                                         \
  X(cuModuleGetFunction, function, (Function*, Module, const char* name))                                           \
  X(cuFuncSetAttribute, setAttribute, (Function, int attribute, int value))                                         \
  X(cuLaunchKernel, launch,                                                                                         \
    (Function, unsigned gridX, unsigned gridY, unsigned gridZ, unsigned x, unsigned y, unsigned z, unsigned shared, \
     Stream, void** parameters, void** extra))                                                                      \
  X(cuStreamBeginCapture_v2, beginCapture, (Stream, int mode))                                                      \
  X(cuStreamEndCapture, endCapture, (Stream, Graph*))                                                               \
  X(cuGraphDestroy, destroyGraph, (Graph))                                                                          \
  X(cuGraphExecDestroy, destroyGraphExec, (GraphExec))                                                              \
  X(cuGraphLaunch, launchGraph, (GraphExec, Stream))

// Of newer drivers alone: without them launches are not gathered.
#define PG_CUDA_NEWER_FUNCTIONS(X)                                                           \
  X(cuGraphInstantiateWithFlags, instantiate, (GraphExec*, Graph, unsigned long long flags)) \
  X(cuGraphExecUpdate_v2, updateGraphExec, (GraphExec, Graph, GraphUpdateInfo*))

#ifdef _WIN32
#define PG_CUDA_CALL __stdcall
#else
#define PG_CUDA_CALL
#endif

struct Api {
#define PG_DECLARE(symbol, name, parameters) Result(PG_CUDA_CALL* name) parameters = nullptr;
  PG_CUDA_FUNCTIONS(PG_DECLARE)
  PG_CUDA_NEWER_FUNCTIONS(PG_DECLARE)
#undef PG_DECLARE

  // The driver's library, initialized, once a process. Fails with deviceUnavailable, saying what to do: no driver, too
  // old a one, no card. PALIGEMMA_CUDA_LIBRARY names another library.
  static const Api& load();

  // "CUDA_ERROR_NO_DEVICE (100): no CUDA-capable device is detected"
  std::string text(Result result) const;
};

}  // namespace pg::gpu::cuda
