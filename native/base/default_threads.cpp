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

// CPUs that the quota of a cgroup's folder allows, of version 2 or 1; infinity without one.
double cpusIn(const std::string& folder) {
  double quota = 0, period = 0;
  std::ifstream whole(folder + "/cpu.max");
  if (!(whole >> quota >> period)) {  // "max" does not parse
    std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;  // -1 is none
    std::ifstream(folder + "/cpu.cfs_period_us") >> period;
  }
  return quota > 0 && period > 0 ? quota / period : INFINITY;
}

// What the quotas of this cgroup, those above it and the container's own allow.
double cgroupCpus() {
  double cpus = std::min(cpusIn("/sys/fs/cgroup"), cpusIn("/sys/fs/cgroup/cpu"));
  std::ifstream self("/proc/self/cgroup");
  for (std::string line; std::getline(self, line);) {  // "0::/path", "1:cpu,cpuacct:/path"
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    if (!controllers.empty() && ("," + controllers + ",").find(",cpu,") == std::string::npos) continue;
    const std::string base = controllers.empty() ? "/sys/fs/cgroup" : "/sys/fs/cgroup/cpu";
    for (std::string path = line.substr(second + 1); path.size() > 1; path = path.substr(0, path.find_last_of('/')))
      cpus = std::min(cpus, cpusIn(base + path));
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
