#include "cpu/cpu_info.h"

#include <cstdlib>

#include "base/error.h"

namespace pg {
namespace {

struct Table {
  const Kernels* kernels;
  bool supported;
};

// Best last.
std::vector<Table> tables() {
  std::vector<Table> list{{&kKernelsScalar, true}};
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

const Kernels& chooseKernels() {
  const char* forced = std::getenv("PALIGEMMA_ISA");
  if (forced && *forced) {
    if (const Kernels* kernels = kernelsFor(forced)) return *kernels;
    std::string known;
    for (const std::string& name : supportedIsas()) known += (known.empty() ? "" : ", ") + name;
    fail(Code::invalidOption, "PALIGEMMA_ISA is \"", forced, "\", but this machine runs ", known);
  }
  return *kernelsFor(supportedIsas().back());
}

}  // namespace pg
