#include "fake_cuda.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

struct Run {
  std::string kernel;
  unsigned args;
};
using Runs = std::vector<Run>;

FakeCuda fake;
std::map<uint64_t, size_t> blocks;
Runs captured;
bool capturing = false;

// What a call says: nothing works in a context that has failed.
int answer(int refused = 0) {
  ++fake.calls;
  return fake.failure ? fake.failure : refused;
}

void carryOut(const Runs& runs) {
  for (const Run& run : runs) fake.kernels.push_back(run.kernel), fake.args.push_back(run.args);
}

template <class T>
T* handle(int& count) {
  ++count;
  return reinterpret_cast<T*>(uintptr_t(0x1000));
}

}  // namespace

EXPORT FakeCuda* fakeCuda() { return &fake; }

EXPORT int cuInit(unsigned) { return ++fake.calls, fake.init; }
EXPORT int cuDriverGetVersion(int* version) { return *version = fake.version, 0; }
EXPORT int cuGetErrorName(int, const char** text) { return *text = "CUDA_ERROR_FAKE", 0; }
EXPORT int cuGetErrorString(int, const char** text) { return *text = "as the test wants", 0; }
EXPORT int cuDeviceGetCount(int* count) { return *count = fake.devices, 0; }
EXPORT int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal < fake.devices ? 0 : 101; }
EXPORT int cuDeviceGetName(char* name, int bytes, int device) {
  strncpy(name, device == 0 ? "Fake Card" : "Other Card", size_t(bytes));
  return 0;
}
EXPORT int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 16 ? 40 : attribute == 75 ? fake.major : attribute == 76 ? fake.minor : 0;
  if (attribute == 97) *value = 99 << 10;
  return 0;
}
EXPORT int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = fake.memory, 0; }
EXPORT int cuDevicePrimaryCtxRetain(void** context, int) {
  if (fake.retain) return fake.retain;
  *context = handle<void>(fake.retained);
  return 0;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int) { return --fake.retained, 0; }
EXPORT int cuDevicePrimaryCtxReset_v2(int) {
  for (const auto& [address, bytes] : blocks) free(reinterpret_cast<void*>(address));
  blocks.clear();
  fake.used = 0, fake.failure = 0, fake.retained = 0;
  return ++fake.resets, 0;
}
EXPORT int cuCtxPushCurrent_v2(void*) { return ++fake.pushed, 0; }
EXPORT int cuCtxPopCurrent_v2(void** context) { return *context = nullptr, --fake.pushed, 0; }
EXPORT int cuCtxSynchronize() { return answer(); }
EXPORT int cuMemGetInfo_v2(size_t* free, size_t* total) {
  *total = fake.memory, *free = fake.memory - fake.used;
  return answer();
}
EXPORT int cuMemAlloc_v2(uint64_t* at, size_t bytes) {
  if (bytes > fake.memory - fake.used) return answer(2);
  *at = reinterpret_cast<uint64_t>(malloc(bytes));
  memset(reinterpret_cast<void*>(*at), 0x5a, bytes);
  blocks[*at] = bytes;
  fake.used += bytes;
  return answer();
}
EXPORT int cuMemFree_v2(uint64_t at) {
  if (!blocks.count(at)) abort();  // given back twice, or of a context that went
  fake.used -= blocks[at];
  blocks.erase(at);
  free(reinterpret_cast<void*>(at));
  return answer();
}
EXPORT int cuMemHostAlloc(void** at, size_t bytes, unsigned) {
  if (fake.hostMemory) return answer(fake.hostMemory);
  *at = malloc(bytes);
  return ++fake.pinned, answer();
}
EXPORT int cuMemFreeHost(void* at) { return free(at), --fake.pinned, answer(); }
EXPORT int cuMemsetD8Async(uint64_t at, unsigned char value, size_t bytes, void*) {
  return memset(reinterpret_cast<void*>(at), value, bytes), answer();
}
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void*) {
  if (const int result = answer()) return result;
  return memcpy(reinterpret_cast<void*>(to), from, bytes), 0;
}
EXPORT int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void*) {
  if (const int result = answer()) return result;
  return memcpy(to, reinterpret_cast<void*>(from), bytes), 0;
}
EXPORT int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void*) {
  if (const int result = answer()) return result;
  return memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes), 0;
}
EXPORT int cuStreamCreate(void** stream, unsigned) { return *stream = handle<void>(fake.streams), answer(); }
EXPORT int cuStreamDestroy_v2(void*) { return --fake.streams, answer(); }
EXPORT int cuStreamSynchronize(void*) { return answer(); }
EXPORT int cuEventCreate(void** event, unsigned) { return *event = handle<void>(fake.events), answer(); }
EXPORT int cuEventDestroy_v2(void*) { return --fake.events, answer(); }
EXPORT int cuEventRecord(void*, void*) { return answer(); }
EXPORT int cuEventSynchronize(void*) { return answer(); }
EXPORT int cuModuleLoadDataEx(void** module, const void* image, unsigned, int*, void** values) {
  if (fake.module) {
    strcpy(static_cast<char*>(values[0]), "line 3: no such instruction");
    return fake.module;
  }
  fake.images.push_back(static_cast<const char*>(image));
  *module = reinterpret_cast<void*>(fake.images.size());
  return ++fake.modules, answer();
}
EXPORT int cuModuleUnload(void*) { return --fake.modules, answer(); }
// A module has the kernels that its text names.
EXPORT int cuModuleGetFunction(void** function, void* module, const char* name) {
  if (fake.images[size_t(module) - 1].find(std::string("[") + name + "]") == std::string::npos) return 500;
  static std::map<std::string, int> names;
  *function = const_cast<std::string*>(&names.emplace(name, 0).first->first);
  return 0;
}
EXPORT int cuFuncSetAttribute(void*, int, int value) { return fake.sharedMemory = unsigned(value), answer(); }
EXPORT int cuLaunchKernel(void* function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*,
                          void** parameters, void**) {
  Run run{*static_cast<std::string*>(function), 0};
  memcpy(&run.args, parameters[0], sizeof run.args);
  if (const int result = answer()) return result;
  if (capturing) captured.push_back(run);
  else carryOut({run});
  return 0;
}
EXPORT int cuStreamBeginCapture_v2(void*, int) {
  if (fake.capture) return fake.capture;
  capturing = true;
  captured.clear();
  return answer();
}
EXPORT int cuStreamEndCapture(void*, void** graph) {
  capturing = false;
  *graph = new Runs(captured);
  return ++fake.graphs, answer();
}
EXPORT int cuGraphDestroy(void* graph) { return delete static_cast<Runs*>(graph), --fake.graphs, answer(); }
EXPORT int cuGraphInstantiateWithFlags(void** exec, void* graph, unsigned long long) {
  if (fake.instantiate) return fake.instantiate;
  *exec = new Runs(*static_cast<Runs*>(graph));
  return ++fake.graphs, answer();
}
EXPORT int cuGraphExecUpdate_v2(void* exec, void* graph, void*) {
  if (fake.update) return fake.update;
  *static_cast<Runs*>(exec) = *static_cast<Runs*>(graph);
  return ++fake.updates, answer();
}
EXPORT int cuGraphExecDestroy(void* exec) { return delete static_cast<Runs*>(exec), --fake.graphs, answer(); }
EXPORT int cuGraphLaunch(void* exec, void*) {
  if (const int result = answer()) return result;
  carryOut(*static_cast<Runs*>(exec));
  return ++fake.graphLaunches, 0;
}
