#pragma once
// A tensor in the program's own memory, as callers hand them in: adapters, mask decoders.
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace pg {

struct HostTensor {
  std::vector<int64_t> shape;  // outermost first
  std::vector<float> data;     // row-major
};

using TensorMap = std::map<std::string, HostTensor, std::less<>>;

// "[2, 3]"
inline std::string shapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace pg
