#pragma once
// GPU threads on the CPU. A group's threads are fibers of one OS thread that run one after the other until they meet at
// a barrier or exchange values within their warp. Whatever a GPU would answer with nonsense or a hang is an error here:
// barriers that not all threads reach, warp operations that not all lanes take part in, too much shared memory.
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gpu/driver.h"
#include "gpu/emulator/fiber.h"

namespace pg::gpu::simt {

inline constexpr uint32_t kWarp = 32, kSlotBytes = 32, kMaxThreads = 1024;

// In which order threads run between two barriers. Results must not depend on it.
enum class Order { forward, shuffled };

struct Launch {
  const char* kernel = "";
  std::function<void()> body;  // what each thread does
  Size3 groups, groupSize;
  uint32_t groupMemory = 0;  // bytes of the dynamic shared block
  uint32_t groupMemoryLimit = 0;
};

// Where in a kernel's source threads wait.
struct Site {
  const char* what;
  int line;
  bool operator==(const Site&) const = default;
};

// Some threads that wait for the others of their group or warp.
struct Meeting {
  uint32_t arrived = 0;
  Site site{};
};

struct Warp {
  Meeting meeting;
  uint32_t phase = 0;  // which half of `slots` the next exchange writes: the other may still be read
  alignas(16) uint8_t slots[2][kWarp][kSlotBytes];
};

struct Thread {
  Size3 index;
  uint32_t linear = 0;
  Fiber* fiber = nullptr;  // where it goes on; none: not begun
  const Meeting* waits = nullptr;
  bool ended = false;
};

// Runs groups, one at a time, on whatever OS thread calls it.
class Runner {
 public:
  // Fails with internal, naming kernel and group.
  void run(const Launch& launch, Size3 group, Order order);

  // --- what kernels see, through the headers of their dialects ---
  const Thread& thread() const { return *current_; }
  Size3 group() const { return group_; }
  const Launch& launch() const { return *launch_; }
  uint32_t lane() const { return current_->linear % kWarp; }
  uint32_t lanes() const;  // of this warp: the last may have fewer than 32

  void barrier(int line) { meet(groupMeeting_, 0, uint32_t(threads_.size()), {"barrier", line}); }
  void warpBarrier(int line) { warpMeet({"warp barrier", line}); }
  // Shows a value to the warp; returns the 32 slots, kSlotBytes apart, until this lane's next exchange but one.
  const uint8_t* exchange(const void* value, size_t bytes, int line);
  // The array that a declaration stands for, one for the group. Filled with NaNs when it begins.
  void* sharedArray(const void* declaration, size_t bytes);
  // What the launch asked for, which must be what the kernel wants.
  void* dynamicShared(size_t bytes) {
    if (bytes != launch_->groupMemory) stop("wants " + std::to_string(bytes) + " bytes of shared memory of its launch");
    return sharedArray(this, bytes);
  }
  [[noreturn]] void stop(std::string what);  // ends the group with an error

 private:
  struct Shared {
    const void* declaration;
    size_t bytes;
    bool used;
    std::unique_ptr<uint8_t[], void (*)(void*)> memory;
  };

  static void fiberMain();
  void begin(const Launch& launch, Size3 group, Order order);
  void meet(Meeting& meeting, uint32_t first, uint32_t count, Site site);
  void warpMeet(Site site);
  void release(uint32_t first, uint32_t count);
  void next(bool ended);
  void resume(Thread* thread);
  Thread* takeReady();
  Fiber* idleFiber();
  std::string stuck() const;

  const Launch* launch_ = nullptr;
  Size3 group_;
  Thread* current_ = nullptr;
  Fiber* fiber_ = nullptr;  // that runs now
  Fiber* main_ = nullptr;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  Meeting groupMeeting_;
  std::vector<uint32_t> order_, laneOrder_;  // permutations of the group's threads, of a warp's lanes
  std::vector<uint32_t> ready_;
  size_t readyAt_ = 0;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;
  std::vector<Shared> shared_;
  size_t sharedBytes_ = 0;
  uint32_t alive_ = 0;
  std::mt19937 random_{1};
  std::string error_;
};

// Whose thread calls.
extern constinit thread_local Runner* runner;

}  // namespace pg::gpu::simt
