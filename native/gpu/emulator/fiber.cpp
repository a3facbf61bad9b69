#include "gpu/emulator/fiber.h"

#include <pthread.h>
#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define PG_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PG_ASAN 1
#endif
#endif
#ifdef PG_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Saves what a call must keep on the stack, changes stacks and takes it back: swapcontext without its two system calls,
// which would be most of an emulated kernel's time.
extern "C" void pgEmulatorSwitch(void** saved, void* next);

#ifdef __APPLE__
#define PG_SYMBOL "_pgEmulatorSwitch"
#else
#define PG_SYMBOL "pgEmulatorSwitch"
#endif

#if defined(__x86_64__)
asm(".text\n.globl " PG_SYMBOL "\n" PG_SYMBOL
    ":\n"
    "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
    "movq %rsp, (%rdi)\nmovq %rsi, %rsp\n"
    "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\n"
    "ret\n");
namespace {
constexpr size_t kSavedWords = 6, kReturnWord = 6, kFrameWords = 8;  // and a return address that nothing returns to
}
#elif defined(__aarch64__)
asm(".text\n.globl " PG_SYMBOL "\n.p2align 2\n" PG_SYMBOL
    ":\n"
    "sub sp, sp, #160\n"
    "stp x19, x20, [sp, #0]\nstp x21, x22, [sp, #16]\nstp x23, x24, [sp, #32]\nstp x25, x26, [sp, #48]\n"
    "stp x27, x28, [sp, #64]\nstp x29, x30, [sp, #80]\n"
    "stp d8, d9, [sp, #96]\nstp d10, d11, [sp, #112]\nstp d12, d13, [sp, #128]\nstp d14, d15, [sp, #144]\n"
    "mov x9, sp\nstr x9, [x0]\nmov sp, x1\n"
    "ldp x19, x20, [sp, #0]\nldp x21, x22, [sp, #16]\nldp x23, x24, [sp, #32]\nldp x25, x26, [sp, #48]\n"
    "ldp x27, x28, [sp, #64]\nldp x29, x30, [sp, #80]\n"
    "ldp d8, d9, [sp, #96]\nldp d10, d11, [sp, #112]\nldp d12, d13, [sp, #128]\nldp d14, d15, [sp, #144]\n"
    "add sp, sp, #160\nret\n");
namespace {
constexpr size_t kReturnWord = 11, kFrameWords = 20;
}
#else
#error "The emulator knows the stacks of x86-64 and arm64 only"
#endif

namespace pg::gpu {
namespace {

#ifdef PG_ASAN
// Bounds of the stack that the system gave this thread.
void threadStack(const void** bottom, size_t* size) {
#ifdef __APPLE__
  *size = pthread_get_stacksize_np(pthread_self());
  *bottom = static_cast<const char*>(pthread_get_stackaddr_np(pthread_self())) - *size;
#else
  pthread_attr_t attributes;
  void* address = nullptr;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) return;
  pthread_attr_getstack(&attributes, &address, size);
  pthread_attr_destroy(&attributes);
  *bottom = address;
#endif
}
#endif

}  // namespace

Fiber::Fiber() {
#ifdef PG_ASAN
  threadStack(&bottom_, &size_);
#endif
}

Fiber::Fiber(Entry entry, size_t stackBytes) : size_(stackBytes) {
  mapped_ = mmap(nullptr, stackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped_ == MAP_FAILED) throw std::bad_alloc();
  bottom_ = mapped_;
  // Stacks that all began at the same place of their pages would take turns in the same few lines of the caches.
  static std::atomic<size_t> count{0};
  const size_t lines = count.fetch_add(1, std::memory_order_relaxed) % 128 * 5;
  auto* frame = static_cast<uint64_t*>(mapped_) + stackBytes / 8 - lines * 8 - kFrameWords;
  frame[kReturnWord] = reinterpret_cast<uint64_t>(entry);
  sp_ = frame;
}

Fiber::~Fiber() {
  if (!mapped_) return;
#ifdef PG_ASAN
  // frames that were left for good
  ASAN_UNPOISON_MEMORY_REGION(mapped_, size_);
#endif
  munmap(mapped_, size_);
}

void Fiber::switchTo(Fiber& to) {
#ifdef PG_ASAN
  __sanitizer_start_switch_fiber(&fake_, to.bottom_, to.size_);
#endif
  pgEmulatorSwitch(&sp_, to.sp_);
#ifdef PG_ASAN
  __sanitizer_finish_switch_fiber(fake_, nullptr, nullptr);
#endif
}

void Fiber::entered() {
#ifdef PG_ASAN
  __sanitizer_finish_switch_fiber(nullptr, nullptr, nullptr);
#endif
}

}  // namespace pg::gpu
