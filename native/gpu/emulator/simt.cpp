#include "gpu/emulator/simt.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace pg::gpu::simt {
namespace {

// Kernels keep little on their stacks; under AddressSanitizer frames are several times as large.
constexpr size_t kStackBytes = 256 << 10;

void shuffle(std::vector<uint32_t>& list, size_t count, Order order, std::mt19937& random) {
  list.resize(count);
  std::iota(list.begin(), list.end(), 0u);
  if (order == Order::shuffled) std::shuffle(list.begin(), list.end(), random);
}

}  // namespace

constinit thread_local Runner* runner = nullptr;

void Runner::run(const Launch& launch, Size3 group, Order order) {
  thread_local Fiber main;
  begin(launch, group, order);
  runner = this;
  main_ = fiber_ = &main;
  resume(takeReady());
  runner = nullptr;
  if (alive_ > 0 && error_.empty()) error_ = stuck();
  if (error_.empty()) return;
  idle_.clear();  // some were left in the middle of a kernel
  fibers_.clear();
  fail(Code::internal, "Kernel ", launch.kernel, ", group ", group.x, ",", group.y, ",", group.z, ": ", error_);
}

void Runner::begin(const Launch& launch, Size3 group, Order order) {
  const Size3 size = launch.groupSize;
  const uint32_t count = size.x * size.y * size.z;
  launch_ = &launch;
  group_ = group;
  std::string().swap(error_);  // and its memory: see stop()
  threads_.assign(count, {});
  for (uint32_t i = 0; i < count; ++i) {
    threads_[i].linear = i;
    threads_[i].index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
  }
  warps_.resize((count + kWarp - 1) / kWarp);
  for (Warp& warp : warps_) warp.meeting = {}, warp.phase = 0;
  groupMeeting_ = {};
  for (Shared& array : shared_) array.used = false;
  sharedBytes_ = 0;
  alive_ = count;
  shuffle(order_, count, order, random_);
  shuffle(laneOrder_, kWarp, order, random_);
  ready_ = order_;
  readyAt_ = 0;
}

uint32_t Runner::lanes() const { return std::min(kWarp, uint32_t(threads_.size()) - current_->linear / kWarp * kWarp); }

// A fiber begins one thread after the other: threads that never wait share one.
void Runner::fiberMain() {
  Fiber::entered();
  for (;;) {
    Runner& r = *runner;
    r.launch_->body();
    Runner& now = *runner;
    now.current_->ended = true;
    --now.alive_;
    now.next(true);
  }
}

Thread* Runner::takeReady() { return readyAt_ < ready_.size() ? &threads_[ready_[readyAt_++]] : nullptr; }

Fiber* Runner::idleFiber() {
  if (idle_.empty()) {
    idle_.push_back(fibers_.emplace_back(std::make_unique<Fiber>(&Runner::fiberMain, kStackBytes)).get());
  }
  Fiber* fiber = idle_.back();
  idle_.pop_back();
  return fiber;
}

// Leaves the running fiber for the one of `thread`, or for main where there is none.
void Runner::resume(Thread* thread) {
  Fiber* from = fiber_;
  Fiber* to = main_;
  if (thread) to = thread->fiber ? thread->fiber : idleFiber();
  current_ = thread;
  fiber_ = to;
  from->switchTo(*to);
}

// The running thread waits or has ended: another one's turn. Returns when it may go on, or when its fiber has another
// thread to begin.
void Runner::next(bool ended) {
  if (readyAt_ >= 4 * kMaxThreads) ready_.erase(ready_.begin(), ready_.begin() + ptrdiff_t(readyAt_)), readyAt_ = 0;
  Thread* thread = takeReady();
  if (ended) {
    if (thread && !thread->fiber) {
      current_ = thread;
      return;
    }
    idle_.push_back(fiber_);
  } else {
    current_->fiber = fiber_;
  }
  resume(thread);
}

void Runner::meet(Meeting& meeting, uint32_t first, uint32_t count, Site site) {
  if (meeting.arrived == 0) meeting.site = site;
  if (!(meeting.site == site))
    stop("divergent: some threads are at the " + std::string(site.what) + " of line " + std::to_string(site.line) +
         ", others at the " + meeting.site.what + " of line " + std::to_string(meeting.site.line));
  if (++meeting.arrived == count) {
    meeting.arrived = 0;
    return release(first, count);
  }
  current_->waits = &meeting;
  next(false);
}

void Runner::warpMeet(Site site) {
  const uint32_t warp = current_->linear / kWarp;
  meet(warps_[warp].meeting, warp * kWarp, lanes(), site);
}

// All have come: those that wait may go on, in this run's order. The one that came last goes on at once.
void Runner::release(uint32_t first, uint32_t count) {
  for (const uint32_t i : count == threads_.size() ? order_ : laneOrder_) {
    if (i >= count) continue;  // of a last warp with fewer lanes
    Thread& thread = threads_[first + i];
    if (&thread == current_) continue;
    thread.waits = nullptr;
    ready_.push_back(first + i);
  }
}

const uint8_t* Runner::exchange(const void* value, size_t bytes, int line) {
  Warp& warp = warps_[current_->linear / kWarp];
  const uint32_t phase = warp.phase;
  std::memcpy(warp.slots[phase][lane()], value, bytes);
  const bool last = warp.meeting.arrived + 1 == lanes();
  if (last) warp.phase ^= 1;
  warpMeet({"warp operation", line});
  return warp.slots[phase][0];
}

void* Runner::sharedArray(const void* declaration, size_t bytes) {
  auto found = std::find_if(shared_.begin(), shared_.end(), [&](const Shared& array) {
    return array.declaration == declaration && array.bytes == bytes;
  });
  if (found == shared_.end()) {
    // exactly as large as asked for, so that AddressSanitizer sees the first byte behind it
    void* memory = nullptr;
    if (posix_memalign(&memory, 128, std::max<size_t>(bytes, 1)) != 0) stop("no memory for its shared arrays");
    shared_.push_back({declaration, bytes, false, {static_cast<uint8_t*>(memory), &std::free}});
    found = shared_.end() - 1;
  }
  if (!found->used) {
    found->used = true;
    std::memset(found->memory.get(), 0xff, bytes);
    sharedBytes_ += (bytes + 15) & ~size_t(15);
    if (sharedBytes_ > launch_->groupMemoryLimit)
      stop("takes " + std::to_string(sharedBytes_) + " bytes of shared memory; a group may have " +
           std::to_string(launch_->groupMemoryLimit));
  }
  return found->memory.get();
}

void Runner::stop(std::string what) {
  error_.swap(what);  // not copied: nothing that this stack owns is ever freed
  Fiber* from = fiber_;
  fiber_ = main_;
  from->switchTo(*main_);
  std::abort();  // nobody comes back
}

std::string Runner::stuck() const {
  const auto waiting = std::find_if(threads_.begin(), threads_.end(), [](const Thread& t) { return t.waits; });
  if (waiting == threads_.end()) return "threads are left that nobody woke";
  const size_t ended = size_t(std::count_if(threads_.begin(), threads_.end(), [](const Thread& t) { return t.ended; }));
  return "divergent: " + std::to_string(waiting->waits->arrived) + " threads wait at the " + waiting->waits->site.what +
         " of line " + std::to_string(waiting->waits->site.line) + ", which others never reach (" +
         std::to_string(ended) + " of " + std::to_string(threads_.size()) + " have ended)";
}

}  // namespace pg::gpu::simt
