#include "gpu/cuda/ptx.h"

#include <charconv>
#include <map>

namespace pg::gpu::cuda {

std::string countedFromOne(std::string_view packed) {
  std::map<std::string_view, int> latest;  // by kind
  std::string text;
  text.reserve(packed.size() * 9 / 8);
  for (size_t at = 0; at < packed.size();) {
    const size_t begin = std::min(packed.find('%', at), packed.size());
    text += packed.substr(at, begin - at);
    size_t end = std::min(begin + 1, packed.size());
    while (end < packed.size() && packed[end] >= 'a' && packed[end] <= 'z') ++end;
    text += packed.substr(begin, end - begin);
    at = end;
    int back = 0;
    const auto [rest, error] = std::from_chars(packed.data() + end, packed.data() + packed.size(), back);
    if (error != std::errc() || end == begin + 1) continue;  // "%tid.x", "%f<9>": no register
    int& last = latest[packed.substr(begin, end - begin)];
    const int number = last - back;
    last = std::max(last, number);
    text += std::to_string(number);
    at = size_t(rest - packed.data());
  }
  return text;
}

// PG_HAS_PTX comes from CMake, for compiler caches that do not know what a file once was not there for. macOS knows no
// CUDA.
#if !defined(__APPLE__) && (defined(PG_HAS_PTX) || __has_include("gpu/cuda/generated/ptx.inc"))
#include "gpu/cuda/generated/ptx.inc"

std::span<const PtxKernel> ptxKernels() { return kPtxKernels; }
#else
std::span<const PtxKernel> ptxKernels() { return {}; }
#endif

}  // namespace pg::gpu::cuda
