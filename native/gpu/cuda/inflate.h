#pragma once
// Deflate's way back (RFC 1951), for our kernels' text: it is ten times as long as what it is packed to.
#include <cstddef>
#include <string>
#include <string_view>

namespace pg::gpu::cuda {

// Raw deflate. Fails with internal where the data are not, or give more or less than `bytes`.
std::string inflate(std::string_view packed, size_t bytes);

}  // namespace pg::gpu::cuda
