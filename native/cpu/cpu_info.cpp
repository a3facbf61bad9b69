#include "cpu/cpu_info.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <optional>

#include "base/error.h"
#include "cpu/check_kernels.h"
#include "cpu/kernels/common/isa.h"

#if defined(_MSC_VER) && defined(_M_X64)
#include <intrin.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#if defined(PG_HAS_AMX)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#elif defined(__linux__) && defined(__aarch64__)
#include <sys/auxv.h>
#elif defined(__APPLE__) && defined(__aarch64__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#endif

namespace pg {
namespace {

#if defined(__x86_64__) || defined(_M_X64)

struct Registers {
  uint32_t eax, ebx, ecx, edx;
};

Registers cpuid(uint32_t leaf, uint32_t sub) {
  Registers r{};
#ifdef _MSC_VER
  int out[4];
  __cpuidex(out, int(leaf), int(sub));
  r = {uint32_t(out[0]), uint32_t(out[1]), uint32_t(out[2]), uint32_t(out[3])};
#else
  __cpuid_count(leaf, sub, r.eax, r.ebx, r.ecx, r.edx);
#endif
  return r;
}

// Which register files the operating system saves: bit 1 xmm, 2 ymm, 5-7 mask registers and zmm, 17 and 18 tiles.
uint64_t savedState() {
#ifdef _MSC_VER
  return _xgetbv(0);
#else
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t(high) << 32 | low;
#endif
}

// Linux saves the 8 KB of tiles for processes that have asked: ARCH_REQ_XCOMP_PERM of <asm/prctl.h>.
bool permitsTiles() {
#if defined(PG_HAS_AMX)
  constexpr long kRequest = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
#else
  return false;
#endif
}

struct X86 {
  bool avx2 = false, avxVnni = false, avx512Vnni = false, amx = false;

  X86() {
    const auto has = [](uint32_t word, int bit) { return (word >> bit & 1) != 0; };
    if (cpuid(0, 0).eax < 7) return;
    const Registers one = cpuid(1, 0), seven = cpuid(7, 0);
    const bool fma = has(one.ecx, 12), osxsave = has(one.ecx, 27), avx = has(one.ecx, 28), f16c = has(one.ecx, 29);
    if (!osxsave || !avx || (savedState() & 6) != 6) return;
    avx2 = fma && f16c && has(seven.ebx, 5);
    avxVnni = avx2 && seven.eax >= 1 && has(cpuid(7, 1).eax, 4);
    const bool f = has(seven.ebx, 16), dq = has(seven.ebx, 17), bw = has(seven.ebx, 30), vl = has(seven.ebx, 31);
    avx512Vnni = avx2 && (savedState() & 0xe0) == 0xe0 && f && dq && bw && vl && has(seven.ecx, 11);
    const bool tiles = has(seven.edx, 24), int8 = has(seven.edx, 25);
    amx = avx512Vnni && tiles && int8 && (savedState() & 0x60000) == 0x60000 && permitsTiles();
  }
};

#elif defined(__aarch64__) || defined(_M_ARM64)

struct Arm {
  bool dotprod = false, i8mm = false;

  Arm() {
#if defined(__linux__)
    // bits of <asm/hwcap.h>, whose older versions lack the second
    dotprod = (getauxval(AT_HWCAP) >> 20 & 1) != 0;
    i8mm = dotprod && (getauxval(AT_HWCAP2) >> 13 & 1) != 0;
#elif defined(__APPLE__)
    const auto has = [](const char* name) {
      int value = 0;
      size_t size = sizeof value;
      return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
    };
    dotprod = has("hw.optional.arm.FEAT_DotProd");
    i8mm = dotprod && has("hw.optional.arm.FEAT_I8MM");
#elif defined(_WIN32)
    dotprod = IsProcessorFeaturePresent(43) != 0;   // PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE; i8mm has no such query
#endif
  }
};

#endif

struct Table {
  const Kernels* kernels;
  bool supported;
  bool timed = true;  // false: no machine that has it has timed it, so only who names it gets it
};

constexpr size_t kMostTables = 5;

// Best last, those that were not timed behind them.
std::vector<Table> tables() {
  std::vector<Table> list{{&kKernelsScalar, true}};
#if defined(__x86_64__) || defined(_M_X64)
  const X86 x86;
  list.push_back({&kKernelsAvx2, x86.avx2});
#if defined(PG_HAS_AVXVNNI)
  list.push_back({&kKernelsAvxVnni, x86.avxVnni});
#endif
  list.push_back({&kKernelsAvx512Vnni, x86.avx512Vnni});
#if defined(PG_HAS_AMX)
  list.push_back({&kKernelsAmx, x86.amx, false});
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
  const Arm arm;
  list.push_back({&kKernelsNeon, true});
  list.push_back({&kKernelsNeonDotprod, arm.dotprod});
  list.push_back({&kKernelsNeonI8mm, arm.i8mm});
#endif
  return list;
}

}  // namespace

std::vector<std::string> supportedIsas() {
  std::vector<std::string> names;
  for (const Table& t : tables())
    if (t.supported) names.push_back(t.kernels->isa);
  return names;
}

const Kernels* kernelsFor(const std::string& isa) {
  for (const Table& t : tables())
    if (t.supported && isa == t.kernels->isa) return t.kernels;
  return nullptr;
}

KernelChoice lastSound(std::span<const Kernels* const> tables) {
  KernelChoice choice;
  for (size_t i = tables.size(); i-- > 0;) {
    std::vector<std::string> wrong;
    for (const KernelCheck& check : checkKernels(*tables[i], CheckDepth::startup))
      if (!check.ok()) wrong.push_back(check.kernel);
    choice.kernels = tables[i];
    if (wrong.empty()) break;
    if (i > 0) choice.broken.push_back({tables[i]->isa, std::move(wrong)});
  }
  return choice;
}

const KernelChoice& kernelChoice() {
  const std::vector<std::string> names = supportedIsas();
  size_t best = 0;
  for (const Table& t : tables())
    if (t.supported && t.timed) best = size_t(std::find(names.begin(), names.end(), t.kernels->isa) - names.begin());
  const char* forced = std::getenv("PALIGEMMA_ISA");  // NOLINT(concurrency-mt-unsafe): only read
  if (forced && *forced) {
    best = size_t(std::find(names.begin(), names.end(), forced) - names.begin());
    if (best == names.size()) {
      std::string known;
      for (const std::string& name : names) known += (known.empty() ? "" : ", ") + name;
      fail(Code::invalidOption, "PALIGEMMA_ISA is \"", forced, "\", but this machine runs ", known);
    }
  }
  // A constant of the machine, found when it is first asked for. No std::call_once: where memory is short, an exception
  // on its way through pthread_once ends the process, as glibc loads a library to unwind its own frame.
  static std::mutex mutex;
  static std::optional<KernelChoice> upTo[kMostTables];
  const std::lock_guard lock(mutex);
  if (!upTo[best]) {
    std::vector<const Kernels*> candidates;
    for (size_t i = 0; i <= best; ++i) candidates.push_back(kernelsFor(names[i]));
    upTo[best] = lastSound(candidates);
  }
  return *upTo[best];
}

}  // namespace pg
