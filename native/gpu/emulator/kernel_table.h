#pragma once
// Emulated kernels by name. KERNEL(...) of a dialect puts each into its dialect's table before main() runs.
#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace pg::gpu {

struct EmulatedKernel {
  const char* name;
  uint32_t maxThreads;   // of a group, as the kernel says
  size_t argsBytes;
  size_t buffers;
  void (*run)(const uint8_t* args, const uint64_t* addresses);  // as one thread
};

class KernelTable {
 public:
  void add(const EmulatedKernel& kernel) { kernels_.push_back(kernel); }
  const EmulatedKernel* find(std::string_view name) const {
    for (const EmulatedKernel& kernel : kernels_)
      if (kernel.name == name) return &kernel;
    return nullptr;
  }
  std::span<const EmulatedKernel> all() const { return kernels_; }

 private:
  std::vector<EmulatedKernel> kernels_;
};

KernelTable& cudaKernels();
KernelTable& metalKernels();

// What a kernel's parameters say of it: its args, then a pointer for each buffer.
template <auto kKernel>
struct KernelCall;

template <class Args, class... Pointers, void (*kKernel)(Args, Pointers...)>
struct KernelCall<kKernel> {
  using Value = std::remove_cvref_t<Args>;
  static_assert(std::is_trivially_copyable_v<Value> && (std::is_pointer_v<Pointers> && ...),
                "a kernel takes its args, then pointers");

  static void run(const uint8_t* bytes, const uint64_t* addresses) {
    Value args;
    std::memcpy(&args, bytes, sizeof args);
    call(args, addresses, std::index_sequence_for<Pointers...>());
  }
  static EmulatedKernel describe(const char* name, uint32_t maxThreads) {
    return {name, maxThreads, sizeof(Value), sizeof...(Pointers), &run};
  }

 private:
  template <size_t... kIndex>
  static void call(Value& args, const uint64_t* addresses, std::index_sequence<kIndex...>) {
    kKernel(args, reinterpret_cast<Pointers>(addresses[kIndex])...);
  }
};

struct KernelRegistration {
  KernelRegistration(KernelTable& table, const EmulatedKernel& kernel) { table.add(kernel); }
};

}  // namespace pg::gpu
