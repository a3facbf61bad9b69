#include "gpu/cuda/cuda_api.h"

#include <cstdlib>
#include <mutex>

#include "base/error.h"

#ifdef _WIN32
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace pg::gpu::cuda {
namespace {

#ifdef _WIN32
const char* const kLibrary = "nvcuda.dll";
void* open(const char* path) { return reinterpret_cast<void*>(LoadLibraryA(path)); }
void* find(void* library, const char* symbol) {
  return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(library), symbol));
}
#else
const char* const kLibrary = "libcuda.so.1";
// never closed: drivers do not survive it
void* open(const char* path) { return dlopen(path, RTLD_NOW | RTLD_LOCAL); }
void* find(void* library, const char* symbol) { return dlsym(library, symbol); }
#endif

// "11.4" of 11040
std::string versionText(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

void* openLibrary() {
#ifdef __APPLE__
  fail(Code::deviceUnavailable, "CUDA does not exist on macOS. Use device \"metal\" or \"auto\"");
#endif
  const char* named = std::getenv("PALIGEMMA_CUDA_LIBRARY");
  const char* path = named && *named ? named : kLibrary;
  void* library = open(path);
  if (!library)
    fail(Code::deviceUnavailable, "There is no NVIDIA driver: ", path,
         " was not found. Install the driver; in Docker, start the container with --gpus all");
  return library;
}

Api resolve(void* library) {
  Api api;
#define PG_FIND(symbol, name, parameters) \
  api.name = reinterpret_cast<Result(PG_CUDA_CALL*) parameters>(find(library, #symbol));
  PG_CUDA_FUNCTIONS(PG_FIND)
  PG_CUDA_NEWER_FUNCTIONS(PG_FIND)
#undef PG_FIND
  const char* missing = nullptr;
#define PG_REQUIRE(symbol, name, parameters) \
  if (!api.name) missing = #symbol;
  PG_CUDA_FUNCTIONS(PG_REQUIRE)
#undef PG_REQUIRE
  if (missing)
    fail(Code::deviceUnavailable, "The NVIDIA driver is too old: it has no ", missing, ". Install one for CUDA ",
         versionText(kOldestDriver), " or newer (450 or later)");
  return api;
}

void start(const Api& api) {
  if (const Result result = api.init(0); result != kSuccess) {
    const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
    if (result == kNoDevice && visible)
      fail(Code::deviceUnavailable, "The NVIDIA driver shows no GPU: CUDA_VISIBLE_DEVICES is \"", visible, "\"");
    fail(Code::deviceUnavailable, "The NVIDIA driver does not start: ", api.text(result),
         result == kNoDevice ? ". Is there a GPU, and may this process see it?"
                             : ". Restarting the machine helps where the driver was just updated");
  }
  int version = 0;
  api.driverVersion(&version);
  if (version < kOldestDriver)
    fail(Code::deviceUnavailable, "The NVIDIA driver is too old: it knows CUDA ", versionText(version),
         ". Install one for CUDA ", versionText(kOldestDriver), " or newer (450 or later)");
}

}  // namespace

const Api& Api::load() {
  static std::mutex mutex;
  static const Api* loaded = nullptr;
  const std::lock_guard lock(mutex);
  if (!loaded) {
    const Api api = resolve(openLibrary());
    start(api);  // tried again the next time: a card may come back
    static Api kept;
    kept = api;
    loaded = &kept;
  }
  return *loaded;
}

std::string Api::text(Result result) const {
  const char *name = nullptr, *text = nullptr;
  errorName(result, &name);
  errorString(result, &text);
  return std::string(name ? name : "CUDA error") + " (" + std::to_string(result) + ")" +
         (text ? std::string(": ") + text : "");
}

}  // namespace pg::gpu::cuda
