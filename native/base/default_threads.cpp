// How many threads compute well here: physical cores, less what affinity and cgroups take away.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <set>
#include <string>
#include <thread>

#include "base/thread_pool.h"

#if defined(__linux__)
#include <sched.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#define NOMINMAX
#include <windows.h>
#include <vector>
#endif

namespace pg {
namespace {

#if defined(__linux__)
int affinityCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return int(std::thread::hardware_concurrency());
  std::set<std::string> cores;  // SMT siblings name the same list
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &set)) continue;
    std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
    std::string siblings;
    if (!std::getline(file, siblings)) siblings = "cpu" + std::to_string(cpu);
    cores.insert(siblings);
  }
  return int(cores.size());
}

// CPUs that the quota of this cgroup or one above it allows; infinity without one.
double cgroupCpus() {
  double cpus = INFINITY;
  std::ifstream self("/proc/self/cgroup");
  for (std::string line; std::getline(self, line);) {
    if (line.rfind("0::", 0) != 0) continue;  // version 2
    for (std::string path = line.substr(3);; path = path.substr(0, path.find_last_of('/'))) {
      std::ifstream max("/sys/fs/cgroup" + path + "/cpu.max");
      double quota, period;
      if (max >> quota >> period && period > 0) cpus = std::min(cpus, quota / period);
      if (path.empty() || path == "/") break;
    }
  }
  for (const char* base : {"/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us"}) {
    std::ifstream file(base);
    double quota, period = 0;
    if (!(file >> quota) || quota <= 0) continue;  // "max" does not parse, -1 is none
    if (!(file >> period)) std::ifstream("/sys/fs/cgroup/cpu/cpu.cfs_period_us") >> period;
    if (period > 0) cpus = std::min(cpus, quota / period);
  }
  return cpus;
}
#endif

int physicalCores() {
#if defined(__linux__)
  return int(std::min<double>(affinityCores(), std::max(1.0, std::floor(cgroupCpus() + 0.5))));
#elif defined(__APPLE__)
  int cores = 0;
  size_t size = sizeof cores;
  // performance cores where the machine has two kinds
  if (sysctlbyname("hw.perflevel0.physicalcpu", &cores, &size, nullptr, 0) != 0)
    sysctlbyname("hw.physicalcpu", &cores, &size, nullptr, 0);
  return cores;
#elif defined(_WIN32)
  DWORD bytes = 0;
  GetLogicalProcessorInformation(nullptr, &bytes);
  std::vector<SYSTEM_LOGICAL_PROCESSOR_INFORMATION> info(bytes / sizeof(SYSTEM_LOGICAL_PROCESSOR_INFORMATION));
  if (info.empty() || !GetLogicalProcessorInformation(info.data(), &bytes)) return 0;
  return int(
      std::count_if(info.begin(), info.end(), [](const auto& i) { return i.Relationship == RelationProcessorCore; }));
#else
  return 0;
#endif
}

}  // namespace

int defaultThreads() {
  const int cores = physicalCores();
  return std::max(1, cores > 0 ? cores : int(std::thread::hardware_concurrency()));
}

}  // namespace pg
