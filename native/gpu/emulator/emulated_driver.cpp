#include "gpu/emulator/emulated_driver.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#if defined(__has_include)
#if __has_include(<sanitizer/asan_interface.h>)
#include <sanitizer/asan_interface.h>
#endif
#endif
#ifndef ASAN_POISON_MEMORY_REGION
#define ASAN_POISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(address, size) ((void)(address), (void)(size))
#endif

namespace pg::gpu {

KernelTable& cudaKernels() {
  static KernelTable table;
  return table;
}
KernelTable& metalKernels() {
  static KernelTable table;
  return table;
}

// Memory of the host that AddressSanitizer lets nobody touch but kernels and copies; or somebody's that is only read.
struct EmulatedDriver::Block final : Memory {
  Block(EmulatedDriver& d, uint8_t* at, size_t size)
      : Memory(reinterpret_cast<uint64_t>(at), size), driver(d), data(at) {
    std::memset(data, 0, bytes);
    close();
    driver.blocks_.insert(this);
    driver.usedBytes_ += bytes;
  }
  Block(EmulatedDriver& d, std::shared_ptr<const uint8_t> theirs, size_t size)
      : Memory(reinterpret_cast<uint64_t>(theirs.get()), size),
        driver(d),
        data(const_cast<uint8_t*>(theirs.get())),
        keeps(std::move(theirs)) {}
  ~Block() override {
    if (keeps) return;
    driver.usedBytes_ -= bytes;
    driver.blocks_.erase(this);
    open();
    std::free(data);
  }
  void open() const { ASAN_UNPOISON_MEMORY_REGION(data, bytes); }
  void close() const { ASAN_POISON_MEMORY_REGION(data, bytes); }

  EmulatedDriver& driver;
  uint8_t* const data;
  const std::shared_ptr<const uint8_t> keeps;   // none: its own
};

// All device memory may be touched as long as it lives.
class EmulatedDriver::Open {
 public:
  explicit Open(const EmulatedDriver& driver) : driver_(driver) {
    for (const Block* block : driver_.blocks_) block->open();
  }
  ~Open() {
    for (const Block* block : driver_.blocks_) block->close();
  }
  Open(const Open&) = delete;

 private:
  const EmulatedDriver& driver_;
};

EmulatedDriver::EmulatedDriver(EmulatorOptions options) : options_(std::move(options)), pool_(options_.threads) {
  info_.kind = options_.kind;
  info_.name = "Emulated GPU";
  info_.detail = "kernels run on the CPU";
  info_.memoryBytes = options_.memoryBytes;
  info_.groupMemoryBytes = options_.groupMemoryBytes;
  info_.processors = options_.processors;
  info_.matrixUnits = options_.matrixUnits;
  info_.unified = options_.unified;
  for (int i = 0; i < pool_.threads(); ++i) runners_.push_back(std::make_unique<simt::Runner>());
}

EmulatedDriver::~EmulatedDriver() = default;

std::unique_ptr<Memory> EmulatedDriver::allocate(size_t bytes) {
  void* data = nullptr;
  // as many bytes as asked for, so that AddressSanitizer sees the first one behind them
  if (bytes > freeBytes() || posix_memalign(&data, 256, bytes) != 0)
    fail(Code::outOfMemory, "The GPU has ", freeBytes() >> 20, " MiB of ", options_.memoryBytes >> 20,
         " MiB free, but ", (bytes >> 20) + 1, " MiB were asked for");
  return std::make_unique<Block>(*this, static_cast<uint8_t*>(data), bytes);
}

std::unique_ptr<Memory> EmulatedDriver::map(std::shared_ptr<const uint8_t> data, size_t bytes) {
  return options_.unified ? std::make_unique<Block>(*this, std::move(data), bytes) : nullptr;
}

uint8_t* EmulatedDriver::bytesOf(const Memory& memory, size_t offset, size_t bytes) const {
  const auto& block = static_cast<const Block&>(memory);
  if (&block.driver != this || offset > block.bytes || bytes > block.bytes - offset)
    fail(Code::internal, "Bytes ", offset, " to ", offset + bytes, " are outside of a memory of ", block.bytes);
  return block.data + offset;
}

void EmulatedDriver::upload(const Memory& to, size_t offset, const void* data, size_t bytes) {
  wait();
  uint8_t* at = bytesOf(to, offset, bytes);
  const Open open(*this);
  std::memcpy(at, data, bytes);
}

void EmulatedDriver::download(void* data, const Memory& from, size_t offset, size_t bytes) {
  wait();
  const uint8_t* at = bytesOf(from, offset, bytes);
  const Open open(*this);
  std::memcpy(data, at, bytes);
}

void EmulatedDriver::copy(const Memory& to, size_t toOffset, const Memory& from, size_t fromOffset, size_t bytes) {
  later([this, bytes, out = bytesOf(to, toOffset, bytes), in = bytesOf(from, fromOffset, bytes)] {
    const Open open(*this);
    std::memmove(out, in, bytes);
  });
}

void EmulatedDriver::launch(const char* kernel, Size3 groups, Size3 groupSize, std::span<const uint8_t> args,
                            std::span<const Binding> buffers, uint32_t groupMemory) {
  later([this, launch = prepare(kernel, groups, groupSize, args, buffers, groupMemory)] { run(launch); });
}

simt::Launch EmulatedDriver::prepare(const char* name, Size3 groups, Size3 groupSize, std::span<const uint8_t> args,
                                     std::span<const Binding> buffers, uint32_t groupMemory) const {
  const auto require = [&](bool ok, const auto&... what) {
    if (!ok) fail(Code::internal, "Kernel ", name, ": ", what...);
  };
  const EmulatedKernel* kernel = options_.kernels->find(name);
  require(kernel != nullptr, "there is no such kernel");
  require(args.size() == kernel->argsBytes, "takes args of ", kernel->argsBytes, " bytes, not ", args.size());
  require(buffers.size() == kernel->buffers, "takes ", kernel->buffers, " buffers, not ", buffers.size());
  const uint64_t threads = uint64_t(groupSize.x) * groupSize.y * groupSize.z;
  require(threads > 0 && threads <= kernel->maxThreads && threads <= simt::kMaxThreads, "was made for groups of ",
          kernel->maxThreads, " threads, not ", threads);
  // CUDA's limits of a grid
  require(
      groups.x > 0 && groups.y > 0 && groups.z > 0 && groups.x <= 0x7fffffff && groups.y < 65536 && groups.z < 65536,
      "cannot be started with ", groups.x, " x ", groups.y, " x ", groups.z, " groups");
  std::vector<uint64_t> addresses;
  for (const Binding& buffer : buffers)
    addresses.push_back(buffer.memory ? reinterpret_cast<uint64_t>(bytesOf(*buffer.memory, buffer.offset, 0)) : 0);
  auto body = [kernel, copied = std::vector<uint8_t>(args.begin(), args.end()), list = std::move(addresses)] {
    kernel->run(copied.data(), list.data());
  };
  return {kernel->name, std::move(body), groups, groupSize, groupMemory, info_.groupMemoryBytes};
}

void EmulatedDriver::run(const simt::Launch& launch) {
  if (options_.launchesUntilLost == 0) fail(Code::deviceLost, "The GPU was lost: it was told to be");
  if (options_.launchesUntilLost > 0) --options_.launchesUntilLost;
  const Open open(*this);
  if (!options_.bothOrders) return runGroups(launch, simt::Order::forward);

  const auto before = contents();
  runGroups(launch, simt::Order::shuffled);
  const auto shuffled = contents();
  size_t i = 0;
  for (const Block* block : blocks_) std::memcpy(block->data, before[i++].data(), block->bytes);
  runGroups(launch, simt::Order::forward);
  i = 0;
  for (const Block* block : blocks_) {
    const std::vector<uint8_t>& other = shuffled[i++];
    if (std::memcmp(block->data, other.data(), block->bytes) == 0) continue;
    const auto differs = std::mismatch(other.begin(), other.end(), block->data).first;
    fail(Code::internal, "Kernel ", launch.kernel, ": the order of its threads changes byte ", differs - other.begin(),
         " of a memory of ", block->bytes, " bytes");
  }
}

void EmulatedDriver::runGroups(const simt::Launch& launch, simt::Order order) {
  const Size3 n = launch.groups;
  const int64_t count = int64_t(n.x) * n.y * n.z;
  pool_.forRange(count, 1, [&](int64_t begin, int64_t end, int worker) {
    for (int64_t i = begin; i < end; ++i) {
      // the other order for groups, too
      const int64_t at = order == simt::Order::forward ? i : count - 1 - i;
      runners_[size_t(worker)]->run(launch, {uint32_t(at % n.x), uint32_t(at / n.x % n.y), uint32_t(at / n.x / n.y)},
                                    order);
    }
  });
}

std::vector<std::vector<uint8_t>> EmulatedDriver::contents() const {
  std::vector<std::vector<uint8_t>> copies;
  for (const Block* block : blocks_) copies.emplace_back(block->data, block->data + block->bytes);
  return copies;
}

void EmulatedDriver::later(std::function<void()> work) {
  if (!gathering_) return work();
  queue_.push_back(std::move(work));
}

void EmulatedDriver::begin() { gathering_ = true; }

void EmulatedDriver::end(bool complete) {
  gathering_ = false;
  if (!complete) queue_.clear();
  wait();
}

void EmulatedDriver::wait() {
  const std::vector<std::function<void()>> queue = std::exchange(queue_, {});
  for (const auto& work : queue) work();
}

}  // namespace pg::gpu
