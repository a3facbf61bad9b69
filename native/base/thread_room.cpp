#include "base/thread_room.h"

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __linux__
#include <dirent.h>
#include <pthread.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstring>
#endif

namespace pg {
namespace {

int threadsCalled([[maybe_unused]] const char* name) {
  int count = 0;
#ifdef __linux__
  DIR* tasks = opendir("/proc/self/task");
  if (!tasks) return 0;
  const size_t length = std::strlen(name);
  while (const dirent* task = readdir(tasks)) {
    char path[300], comm[32] = "";
    std::snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
    FILE* file = task->d_name[0] == '.' ? nullptr : std::fopen(path, "re");
    if (!file) continue;
    if (std::fgets(comm, sizeof comm, file) && !std::strncmp(comm, name, length) && comm[length] == '\n') ++count;
    std::fclose(file);
  }
  closedir(tasks);
#endif
  return count;
}

}  // namespace

bool roomForThread() {
#ifdef __linux__
  constexpr size_t kBeside = size_t(1) << 20;
  pthread_attr_t attributes;
  size_t stack = 0;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_attr_getstacksize(&attributes, &stack);
  pthread_attr_destroy(&attributes);
  void* probe = mmap(nullptr, stack + kBeside, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (probe == MAP_FAILED) return false;
  munmap(probe, stack + kBeside);
#endif
  return true;
}

int threadRoom(int want, const char* idle) {
  const int there = std::min(threadsCalled(idle), want);
  std::mutex mutex;
  std::condition_variable wake;
  bool over = false;
  std::vector<std::thread> tried;
  tried.reserve(size_t(want - there));
  try {
    while (int(tried.size()) < want - there && roomForThread())
      tried.emplace_back([&] {
        std::unique_lock lock(mutex);
        wake.wait(lock, [&] { return over; });
      });
  } catch (const std::system_error&) {  // refused
  } catch (const std::bad_alloc&) {}
  {
    const std::lock_guard lock(mutex);
    over = true;
  }
  wake.notify_all();
  for (std::thread& thread : tried) thread.join();
  return there + int(tried.size());
}

}  // namespace pg
