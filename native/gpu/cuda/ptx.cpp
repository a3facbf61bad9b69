#include "gpu/cuda/ptx.h"

#include <charconv>

#include "base/error.h"

namespace pg::gpu::cuda {
namespace {

[[noreturn]] void failDamaged(size_t at) {
  fail(Code::deviceUnavailable, "The CUDA kernels of this package are damaged at byte ", at,
       " of their text: install it again, or use device: 'cpu'");
}

// The next word of a line, which a space or the line's end follows.
std::string_view word(std::string_view text, size_t& at, char end) {
  const size_t stop = text.find(end, at);
  if (stop == std::string_view::npos || stop == at) failDamaged(at);
  const std::string_view found = text.substr(at, stop - at);
  at = stop + 1;
  return found;
}

size_t number(std::string_view text, size_t& at, char end) {
  const size_t start = at;
  const std::string_view digits = word(text, at, end);
  size_t value = 0;
  const auto [rest, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (error != std::errc() || rest != digits.data() + digits.size()) failDamaged(start);
  return value;
}

}  // namespace

PtxKernels readPtx(std::shared_ptr<const std::string> file) {
  PtxKernels kernels{{}, file};
  const std::string_view text = *file;
  for (size_t at = 0; at < text.size();) {
    const std::string_view name = word(text, at, ' ');
    const auto capability = int(number(text, at, ' '));
    const size_t bytes = number(text, at, '\n');
    if (bytes >= text.size() - at || text[at + bytes] != '\0') failDamaged(at);
    kernels.list.push_back({name, capability, text.substr(at, bytes)});
    at += bytes + 1;
  }
  return kernels;
}

}  // namespace pg::gpu::cuda
