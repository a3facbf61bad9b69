#include "base/fault_guard.h"

#ifdef _WIN32

namespace pg {

FaultGuard::FaultGuard(const void*, size_t) {}
FaultGuard::~FaultGuard() = default;

}  // namespace pg

#else

#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <mutex>

namespace pg {
namespace {

using Slot = FaultGuard::Slot;

std::atomic<Slot*> slots{nullptr};
std::mutex slotsMutex;  // of those that add and remove; the handler only reads
struct sigaction previous;
size_t pageSize = 4096;

Slot* slotOf(const char* address) {
  for (Slot* slot = slots.load(std::memory_order_acquire); slot; slot = slot->next) {
    const char* begin = slot->begin.load(std::memory_order_acquire);
    if (begin && address >= begin && address < begin + slot->size.load(std::memory_order_relaxed)) return slot;
  }
  return nullptr;
}

// From the lost page to the end: a file that was cut has nothing behind it either, and one mapping is quicker than
// another fault for every page. Readers of the same pages in other threads go on, with the old bytes or with zeros.
bool replaceByZeros(const Slot& slot, const char* address) {
  const uintptr_t page = uintptr_t(address) / pageSize * pageSize;
  const uintptr_t end = uintptr_t(slot.begin.load(std::memory_order_relaxed)) + slot.size.load();
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
#ifdef MAP_NORESERVE
  flags |= MAP_NORESERVE;
#endif
  return mmap(reinterpret_cast<void*>(page), end - page, PROT_READ, flags, -1, 0) != MAP_FAILED;
}

void passOn(int signal, siginfo_t* info, void* context) {
  if (previous.sa_flags & SA_SIGINFO) return previous.sa_sigaction(signal, info, context);
  if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) return previous.sa_handler(signal);
  const bool sent = info->si_code <= 0;  // by kill(), not by an access
  if (sent && previous.sa_handler == SIG_IGN) return;
  // As if we were not there: the access is made again, or the signal sent again, and the default ends the process.
  ::signal(signal, SIG_DFL);
  if (sent) raise(signal);
}

// Async-signal-safe: atomics and mmap, which is a bare system call on Linux and macOS.
void onBusError(int signal, siginfo_t* info, void* context) {
  const int error = errno;
  const char* address = static_cast<const char*>(info->si_addr);
  Slot* slot = info->si_code > 0 ? slotOf(address) : nullptr;
  if (slot) {
    slot->faulted.store(true, std::memory_order_release);
    if (replaceByZeros(*slot, address)) {
      errno = error;
      return;
    }
  }
  passOn(signal, info, context);
}

// Node unloads an addon with the last worker that used it; a handler must stay where it is.
void stayLoaded() {
  Dl_info info;
  if (dladdr(reinterpret_cast<void*>(&onBusError), &info) && info.dli_fname)
    dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

void install() {
  const char* wish = std::getenv("PALIGEMMA_FAULT_HANDLER");  // NOLINT(concurrency-mt-unsafe): only read
  if (wish && std::strcmp(wish, "0") == 0) return;
  pageSize = size_t(sysconf(_SC_PAGESIZE));
  stayLoaded();
  if (sigaction(SIGBUS, nullptr, &previous) != 0) return;
  struct sigaction ours{};
  ours.sa_sigaction = onBusError;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigemptyset(&ours.sa_mask);
  sigaction(SIGBUS, &ours, nullptr);
}

}  // namespace

FaultGuard::FaultGuard(const void* data, size_t size) {
  static std::once_flag once;
  std::call_once(once, install);
  std::lock_guard lock(slotsMutex);
  Slot* slot = slots.load();
  while (slot && slot->begin.load()) slot = slot->next;
  if (!slot) {
    slot = new Slot;
    slot->next = slots.load();
    slots.store(slot, std::memory_order_release);
  }
  slot->faulted = false;
  slot->size = size;
  slot->begin.store(static_cast<const char*>(data), std::memory_order_release);
  slot_ = slot;
}

FaultGuard::~FaultGuard() {
  std::lock_guard lock(slotsMutex);
  slot_->begin.store(nullptr, std::memory_order_release);
}

}  // namespace pg

#endif
