// The largest values of rows. A value becomes a key that orders as the choice does: larger values first, then smaller
// columns; 0 is nothing, which minus infinity and NaN are.
#include "common.cuh"

namespace pg::gpu {

constexpr uint32_t kChoiceThreads = 256, kChunk = 1024;
constexpr int32_t kNobody = -1, kNanInRow = -2;   // as device.h says

__device__ inline uint64_t keyOf(float v, uint32_t column, bool& nan) {
  const uint32_t bits = asBits(v + 0.0f);   // -0 is 0
  if ((bits & 0x7fffffff) > 0x7f800000) nan = true;
  if ((bits & 0x7fffffff) > 0x7f800000 || bits == 0xff800000) return 0;
  const uint32_t ordered = bits & 0x80000000 ? ~bits : bits | 0x80000000;
  return uint64_t(ordered) << 32 | uint32_t(~column);
}

__device__ inline float valueOf(uint64_t key) {
  const uint32_t ordered = uint32_t(key >> 32);
  return key == 0 ? -INFINITY : asFloat(ordered & 0x80000000 ? ordered & 0x7fffffff : ~ordered);
}
__device__ inline int32_t columnOf(uint64_t key) { return key == 0 ? kNobody : int32_t(~uint32_t(key)); }

// A block a row.
KERNEL(kChoiceThreads, argmax, (TopArgs a, int32_t* ids, const float* x)) {
  TG_ARRAY(uint64_t, best, kChoiceThreads);
  TG_ARRAY(uint32_t, anyNan, kChoiceThreads);
  const float* row = x + size_t(blockIdx.x) * a.stride;
  uint64_t most = 0;
  bool nan = false;
  for (uint32_t c = threadIdx.x; c < a.count; c += kChoiceThreads) {
    const uint64_t key = keyOf(row[c], c, nan);
    most = key > most ? key : most;
  }
  best[threadIdx.x] = most;
  anyNan[threadIdx.x] = nan;
  for (uint32_t half = kChoiceThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      const uint64_t other = best[threadIdx.x + half];
      if (other > best[threadIdx.x]) best[threadIdx.x] = other;
      anyNan[threadIdx.x] |= anyNan[threadIdx.x + half];
    }
  }
  if (threadIdx.x == 0) ids[size_t(blockIdx.x) * a.idStride] = anyNan[0] ? kNanInRow : columnOf(best[0]);
}

// The k largest keys of each chunk of kChunk, in order: bitonic sorting. block = (chunk, row)
template <class Key>
__device__ inline void sortChunk(const TopArgs& a, uint64_t* sorted, uint64_t* out, const Key& key) {
  const uint32_t first = blockIdx.x * kChunk;
  for (uint32_t i = threadIdx.x; i < kChunk; i += kChoiceThreads) sorted[i] = first + i < a.count ? key(first + i) : 0;
  for (uint32_t run = 2; run <= kChunk; run *= 2)
    for (uint32_t step = run / 2; step > 0; step /= 2) {
      __syncthreads();
      for (uint32_t t = threadIdx.x; t < kChunk / 2; t += kChoiceThreads) {
        const uint32_t i = t / step * 2 * step + t % step, j = i + step;
        const bool falling = (i & run) == 0;
        if ((sorted[i] < sorted[j]) == falling) {
          const uint64_t swap = sorted[i];
          sorted[i] = sorted[j];
          sorted[j] = swap;
        }
      }
    }
  __syncthreads();
  for (uint32_t i = threadIdx.x; i < a.k; i += kChoiceThreads)
    out[(size_t(blockIdx.y) * a.chunks + blockIdx.x) * a.k + i] = sorted[i];
}

KERNEL(kChoiceThreads, top_values, (TopArgs a, uint64_t* out, const float* x, int32_t* nanRows)) {
  TG_ARRAY(uint64_t, sorted, kChunk);
  const float* row = x + size_t(blockIdx.y) * a.stride;
  bool nan = false;
  sortChunk(a, sorted, out, [&](uint32_t c) { return keyOf(row[c], c, nan); });
  if (nan) nanRows[blockIdx.y] = 1;   // all who write it write the same
}

KERNEL(kChoiceThreads, top_keys, (TopArgs a, uint64_t* out, const uint64_t* keys)) {
  TG_ARRAY(uint64_t, sorted, kChunk);
  const uint64_t* row = keys + size_t(blockIdx.y) * a.stride;
  sortChunk(a, sorted, out, [&](uint32_t i) { return row[i]; });
}

// Keys back to columns and values; a block a row
KERNEL(kChoiceThreads, top_result,
       (TopArgs a, int32_t* ids, float* values, const uint64_t* keys, const int32_t* nanRows)) {
  const size_t row = blockIdx.x;
  for (uint32_t i = threadIdx.x; i < a.k; i += blockDim.x) {
    const uint64_t key = keys[row * a.k + i];
    values[row * a.valueStride + i] = valueOf(key);
    ids[row * a.idStride + i] = i == 0 && nanRows[row] ? kNanInRow : columnOf(key);
  }
}

KERNEL(kChoiceThreads, clear_words, (RowArgs a, uint32_t* x)) {
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < a.cols; i += gridDim.x * blockDim.x) x[i] = 0;
}

}  // namespace pg::gpu
