#include "base/largest.h"

#include <algorithm>
#include <vector>

#include "base/half.h"

namespace pg {
int32_t largestOf(std::span<const float> values) {
  constexpr size_t kBlock = 256, kLanes = 8;
  float best = kNothing;
  int32_t id = -1;
  size_t at = 0;
  for (; at + kBlock <= values.size(); at += kBlock) {
    float lane[kLanes];
    std::fill(lane, lane + kLanes, kNothing);
    for (size_t i = 0; i < kBlock; i += kLanes)
      for (size_t l = 0; l < kLanes; ++l) {
        const float v = values[at + i + l];
        lane[l] = v > lane[l] ? v : lane[l];  // false for NaN
      }
    const float most = *std::max_element(lane, lane + kLanes);
    if (!(most > best)) continue;
    best = most;
    id = int32_t(at);
    while (values[size_t(id)] != most) ++id;
  }
  for (; at < values.size(); ++at)
    if (values[at] > best) {
      best = values[at];
      id = int32_t(at);
    }
  return id;
}

bool hasNan(std::span<const float> values) {
  uint32_t found = 0;
  for (const float v : values) found |= (floatToBits(v) & 0x7fffffff) > 0x7f800000;
  return found != 0;
}

void largestK(std::span<const float> values, std::span<int32_t> ids, float* largest) {
  const auto better = [&](int32_t a, int32_t b) {
    const float x = values[size_t(a)], y = values[size_t(b)];
    return x > y || (x == y && a < b);
  };
  std::vector<int32_t> heap;  // of the best so far, worst on top
  heap.reserve(ids.size());
  for (int32_t id = 0; size_t(id) < values.size(); ++id) {
    if (!(values[size_t(id)] > kNothing)) continue;
    if (heap.size() == ids.size()) {
      if (!better(id, heap.front())) continue;
      std::pop_heap(heap.begin(), heap.end(), better);
      heap.pop_back();
    }
    heap.push_back(id);
    std::push_heap(heap.begin(), heap.end(), better);
  }
  std::sort_heap(heap.begin(), heap.end(), better);
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = i < heap.size() ? heap[i] : -1;
    largest[i] = i < heap.size() ? values[size_t(heap[i])] : kNothing;
  }
}

}  // namespace pg
