#include "fake_cuda.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>
#include <sstream>

#include "fake_cuda_kernels.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using namespace pg::fake;

struct Stream {
  bool capturing = false;
  Runs captured;
};

FakeCuda fake;
std::map<uint64_t, size_t> blocks;
std::set<Stream*> streams;
std::set<Runs*> graphs;
std::set<void*> pinned;
std::recursive_mutex mutex;   // models call from their own threads

// What a call says: nothing works in a context that has failed.
int answer(int refused = 0) {
  ++fake.calls;
  return fake.failure ? fake.failure : refused;
}

template <class Body>
int call(const Body& body) {
  const std::lock_guard lock(mutex);
  return body();
}

int carryOut(const Runs& runs) {
  for (const Run& run : runs) {
    fake.kernels.push_back(run.function->name), fake.args.push_back(run.firstWord());
    if (fake.lostAfter == 0) fake.failure = 719;
    if (fake.lostAfter > 0) --fake.lostAfter;
    if (fake.failure == 0) fake.failure = run.carryOut();
  }
  return fake.failure;
}

template <class T>
T* handle(int& count) {
  ++count;
  return reinterpret_cast<T*>(uintptr_t(0x1000));
}

int add(void** graph, const Runs& runs) {
  *graph = *graphs.insert(new Runs(runs)).first;
  return ++fake.graphs, answer();
}

int remove(void* graph) {
  if (!graphs.erase(static_cast<Runs*>(graph))) abort();   // given back twice
  delete static_cast<Runs*>(graph);
  return --fake.graphs, answer();
}

// All that was made in the context goes with it.
void reset() {
  for (const auto& [address, bytes] : blocks) free(reinterpret_cast<void*>(address));
  for (void* memory : pinned) free(memory);
  for (const Stream* stream : streams) delete stream;
  for (const Runs* graph : graphs) delete graph;
  blocks.clear(), pinned.clear(), streams.clear(), graphs.clear();
  fake.used = 0, fake.failure = 0;
  fake.retained = fake.streams = fake.modules = fake.pinned = fake.events = fake.graphs = 0;
  ++fake.resets;
}

// "name=number name=number"
void readSettings() {
  const char* text = std::getenv("FAKE_CUDA");
  if (!text) return;
  const std::pair<const char*, int*> settings[] = {
      {"version", &fake.version}, {"devices", &fake.devices}, {"major", &fake.major},  {"minor", &fake.minor},
      {"init", &fake.init},       {"module", &fake.module},   {"retain", &fake.retain}};
  const FakeCuda fresh;
  for (const auto& [name, value] : settings) *value = 0;
  fake.version = fresh.version, fake.devices = fresh.devices, fake.major = fresh.major, fake.minor = fresh.minor;
  fake.memory = size_t(8) << 30, fake.lostAfter = -1;
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    const size_t is = word.find('=');
    if (is == std::string::npos) abort();
    const std::string name = word.substr(0, is);
    const long long value = std::atoll(word.c_str() + is + 1);
    if (name == "memory") fake.memory = size_t(value);
    else if (name == "lostAfter") fake.lostAfter = long(value);
    else
      for (const auto& [known, place] : settings)
        if (name == known) *place = int(value);
  }
  // as NVIDIA's reads it
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  if (visible && (!*visible || *visible == '-')) fake.init = 100;
}

[[maybe_unused]] const bool logged = [] {
  if (const char* path = std::getenv("FAKE_CUDA_LOG"))
    if (FILE* log = std::fopen(path, "a")) std::fputs("loaded\n", log), std::fclose(log);
  return true;
}();

}  // namespace

EXPORT FakeCuda* fakeCuda() { return &fake; }

EXPORT int cuInit(unsigned) {
  return call([] { return readSettings(), ++fake.calls, fake.init; });
}
EXPORT int cuDriverGetVersion(int* version) { return *version = fake.version, 0; }
EXPORT int cuGetErrorName(int, const char** text) { return *text = "CUDA_ERROR_FAKE", 0; }
EXPORT int cuGetErrorString(int, const char** text) { return *text = "as the test wants", 0; }
EXPORT int cuDeviceGetCount(int* count) {
  return call([&] { return readSettings(), *count = fake.devices, 0; });
}
EXPORT int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal < fake.devices ? 0 : 101; }
EXPORT int cuDeviceGetName(char* name, int bytes, int device) {
  strncpy(name, device == 0 ? "Fake Card" : "Other Card", size_t(bytes));
  return 0;
}
EXPORT int cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 16 ? 40 : attribute == 75 ? fake.major : attribute == 76 ? fake.minor : 0;
  if (attribute == 97) *value = int(kSharedMemoryOptIn);
  return 0;
}
EXPORT int cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = fake.memory, 0; }
EXPORT int cuDevicePrimaryCtxRetain(void** context, int) {
  return call([&] {
    if (fake.retain) return fake.retain;
    *context = handle<void>(fake.retained);
    return 0;
  });
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int) {
  return call([] { return --fake.retained, 0; });
}
EXPORT int cuDevicePrimaryCtxReset_v2(int) {
  return call([] { return reset(), 0; });
}
EXPORT int cuCtxPushCurrent_v2(void*) {
  return call([] { return ++fake.pushed, 0; });
}
EXPORT int cuCtxPopCurrent_v2(void** context) {
  return call([&] { return *context = nullptr, --fake.pushed, 0; });
}
EXPORT int cuCtxSynchronize() {
  return call([] { return answer(); });
}
EXPORT int cuMemGetInfo_v2(size_t* free, size_t* total) {
  return call([&] {
    *total = fake.memory, *free = fake.memory - fake.used;
    return answer();
  });
}
EXPORT int cuMemAlloc_v2(uint64_t* at, size_t bytes) {
  return call([&] {
    void* memory = nullptr;
    if (bytes == 0) return answer(1);
    if (bytes > fake.memory - fake.used || posix_memalign(&memory, 256, bytes) != 0) return answer(2);
    memset(memory, 0x5a, bytes);
    *at = reinterpret_cast<uint64_t>(memory);
    blocks[*at] = bytes;
    fake.used += bytes;
    return answer();
  });
}
EXPORT int cuMemFree_v2(uint64_t at) {
  return call([&] {
    if (!blocks.count(at)) abort();  // given back twice, or of a context that went
    fake.used -= blocks[at];
    blocks.erase(at);
    free(reinterpret_cast<void*>(at));
    return answer();
  });
}
EXPORT int cuMemHostAlloc(void** at, size_t bytes, unsigned) {
  return call([&] {
    if (fake.hostMemory) return answer(fake.hostMemory);
    *at = *pinned.insert(malloc(bytes)).first;
    return ++fake.pinned, answer();
  });
}
EXPORT int cuMemFreeHost(void* at) {
  return call([&] { return pinned.erase(at), free(at), --fake.pinned, answer(); });
}
EXPORT int cuMemsetD8Async(uint64_t at, unsigned char value, size_t bytes, void*) {
  return call([&] { return memset(reinterpret_cast<void*>(at), value, bytes), answer(); });
}
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void*) {
  return call([&] {
    if (const int result = answer()) return result;
    return memcpy(reinterpret_cast<void*>(to), from, bytes), 0;
  });
}
EXPORT int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void*) {
  return call([&] {
    if (const int result = answer()) return result;
    return memcpy(to, reinterpret_cast<void*>(from), bytes), 0;
  });
}
EXPORT int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void*) {
  return call([&] {
    if (const int result = answer()) return result;
    return memmove(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes), 0;
  });
}
EXPORT int cuStreamCreate(void** stream, unsigned) {
  return call([&] {
    *stream = *streams.insert(new Stream).first;
    return ++fake.streams, answer();
  });
}
EXPORT int cuStreamDestroy_v2(void* stream) {
  return call([&] {
    if (!streams.erase(static_cast<Stream*>(stream))) abort();
    delete static_cast<Stream*>(stream);
    return --fake.streams, answer();
  });
}
EXPORT int cuStreamSynchronize(void*) {
  return call([] { return answer(); });
}
EXPORT int cuEventCreate(void** event, unsigned) {
  return call([&] { return *event = handle<void>(fake.events), answer(); });
}
EXPORT int cuEventDestroy_v2(void*) {
  return call([] { return --fake.events, answer(); });
}
EXPORT int cuEventRecord(void*, void*) {
  return call([] { return answer(); });
}
EXPORT int cuEventSynchronize(void*) {
  return call([] { return answer(); });
}
EXPORT int cuModuleLoadDataEx(void** module, const void* image, unsigned, int*, void** values) {
  return call([&] {
    if (fake.module) {
      strcpy(static_cast<char*>(values[0]), "line 3: no such instruction");
      return fake.module;
    }
    fake.images.push_back(static_cast<const char*>(image));
    *module = reinterpret_cast<void*>(fake.images.size());
    return ++fake.modules, answer();
  });
}
EXPORT int cuModuleUnload(void*) {
  return call([] { return --fake.modules, answer(); });
}
EXPORT int cuModuleGetFunction(void** function, void* module, const char* name) {
  return call([&] {
    const Function* found = functionOf(fake.images[size_t(module) - 1], name);
    *function = const_cast<Function*>(found);
    return found ? 0 : 500;
  });
}
EXPORT int cuFuncSetAttribute(void* function, int, int value) {
  return call([&] {
    if (value > int(kSharedMemoryOptIn)) return answer(1);
    static_cast<Function*>(function)->allowedShared = unsigned(value);
    return fake.sharedMemory = unsigned(value), answer();
  });
}
EXPORT int cuLaunchKernel(void* function, unsigned gridX, unsigned gridY, unsigned gridZ, unsigned x, unsigned y,
                          unsigned z, unsigned shared, void* stream, void** parameters, void**) {
  return call([&] {
    const Run run(static_cast<Function*>(function), {gridX, gridY, gridZ}, {x, y, z}, shared, parameters);
    if (const int result = answer(run.refusal())) return result;
    if (!static_cast<Stream*>(stream)->capturing) return carryOut({run});
    static_cast<Stream*>(stream)->captured.push_back(run);
    return 0;
  });
}
EXPORT int cuStreamBeginCapture_v2(void* stream, int) {
  return call([&] {
    if (fake.capture) return fake.capture;
    *static_cast<Stream*>(stream) = {true, {}};
    return answer();
  });
}
EXPORT int cuStreamEndCapture(void* stream, void** graph) {
  return call([&] {
    static_cast<Stream*>(stream)->capturing = false;
    return add(graph, static_cast<Stream*>(stream)->captured);
  });
}
EXPORT int cuGraphDestroy(void* graph) {
  return call([&] { return remove(graph); });
}
EXPORT int cuGraphInstantiateWithFlags(void** exec, void* graph, unsigned long long) {
  return call([&] {
    if (fake.instantiate) return fake.instantiate;
    return add(exec, *static_cast<Runs*>(graph));
  });
}
EXPORT int cuGraphExecUpdate_v2(void* exec, void* graph, void*) {
  return call([&] {
    if (fake.update) return fake.update;
    // the same kernels in the same order, as CUDA wants it
    Runs &old = *static_cast<Runs*>(exec), &next = *static_cast<Runs*>(graph);
    if (old.size() != next.size()) return 910;
    for (size_t i = 0; i < old.size(); ++i)
      if (old[i].function != next[i].function) return 910;
    old = next;
    return ++fake.updates, answer();
  });
}
EXPORT int cuGraphExecDestroy(void* exec) {
  return call([&] { return remove(exec); });
}
EXPORT int cuGraphLaunch(void* exec, void*) {
  return call([&] {
    if (const int result = answer()) return result;
    ++fake.graphLaunches;
    return carryOut(*static_cast<Runs*>(exec));
  });
}
