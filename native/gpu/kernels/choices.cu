// The largest values of rows. A value becomes a key that orders as the choice does: larger values first, then smaller
// columns; 0 is nothing, which minus infinity and NaN are.
#include "gpu/kernels/common.h"

KERNELS_BEGIN

CONSTANT uint32_t kChoiceThreads = 256, kChunk = 1024;
CONSTANT int32_t kNobody = -1, kNanInRow = -2;   // as device.h says

__device__ inline bool isNan(float v) { return (asBits(v) & 0x7fffffff) > 0x7f800000; }

__device__ inline uint64_t keyOf(float v, uint32_t column) {
  const uint32_t bits = asBits(v + 0.0f);   // -0 is 0
  if (isNan(v) || bits == 0xff800000) return 0;
  const uint32_t ordered = bits & 0x80000000 ? ~bits : bits | 0x80000000;
  return uint64_t(ordered) << 32 | uint32_t(~column);
}

__device__ inline float valueOf(uint64_t key) {
  const uint32_t ordered = uint32_t(key >> 32);
  return key == 0 ? -INFINITY : asFloat(ordered & 0x80000000 ? ordered & 0x7fffffff : ~ordered);
}
__device__ inline int32_t columnOf(uint64_t key) { return key == 0 ? kNobody : int32_t(~uint32_t(key)); }

// A group a row.
KERNEL(kChoiceThreads, argmax, (TopArgs, int32_t* ids, const float* x)) {
  TG_ARRAY(uint64_t, best, kChoiceThreads);
  TG_ARRAY(uint32_t, anyNan, kChoiceThreads);
  const Place at = PLACE;
  GLOBAL const float* row = x + size_t(at.x) * a.stride;
  uint64_t most = 0;
  bool nan = false;
  for (uint32_t c = at.index; c < a.count; c += kChoiceThreads) {
    const uint64_t key = keyOf(row[c], c);
    nan = nan || isNan(row[c]);
    most = key > most ? key : most;
  }
  best[at.index] = most;
  anyNan[at.index] = nan;
  for (uint32_t step = kChoiceThreads / 2; step > 0; step /= 2) {
    groupBarrier();
    if (at.index < step) {
      const uint64_t other = best[at.index + step];
      if (other > best[at.index]) best[at.index] = other;
      anyNan[at.index] |= anyNan[at.index + step];
    }
  }
  if (at.index == 0) ids[size_t(at.x) * a.idStride] = anyNan[0] ? kNanInRow : columnOf(best[0]);
}

// The k largest of a chunk of kChunk keys, in order, by bitonic sorting. group = (chunk, row)
__device__ inline void sortChunk(Place at, ARGS TopArgs& a, SHARED uint64_t* sorted, GLOBAL uint64_t* out) {
  for (uint32_t run = 2; run <= kChunk; run *= 2)
    for (uint32_t step = run / 2; step > 0; step /= 2) {
      groupBarrier();
      for (uint32_t t = at.index; t < kChunk / 2; t += kChoiceThreads) {
        const uint32_t i = t / step * 2 * step + t % step, j = i + step;
        const bool falling = (i & run) == 0;
        if ((sorted[i] < sorted[j]) == falling) {
          const uint64_t swap = sorted[i];
          sorted[i] = sorted[j];
          sorted[j] = swap;
        }
      }
    }
  groupBarrier();
  for (uint32_t i = at.index; i < a.k; i += kChoiceThreads)
    out[(size_t(at.y) * a.chunks + at.x) * a.k + i] = sorted[i];
}

KERNEL(kChoiceThreads, top_values, (TopArgs, uint64_t* out, const float* x, int32_t* nanRows)) {
  TG_ARRAY(uint64_t, sorted, kChunk);
  const Place at = PLACE;
  GLOBAL const float* row = x + size_t(at.y) * a.stride;
  for (uint32_t i = at.index; i < kChunk; i += kChoiceThreads) {
    const uint32_t c = at.x * kChunk + i;
    sorted[i] = c < a.count ? keyOf(row[c], c) : 0;
    if (c < a.count && isNan(row[c])) nanRows[at.y] = 1;   // all who write it write the same
  }
  sortChunk(at, a, sorted, out);
}

KERNEL(kChoiceThreads, top_keys, (TopArgs, uint64_t* out, const uint64_t* keys)) {
  TG_ARRAY(uint64_t, sorted, kChunk);
  const Place at = PLACE;
  GLOBAL const uint64_t* row = keys + size_t(at.y) * a.stride;
  for (uint32_t i = at.index; i < kChunk; i += kChoiceThreads)
    sorted[i] = at.x * kChunk + i < a.count ? row[at.x * kChunk + i] : 0;
  sortChunk(at, a, sorted, out);
}

// Keys back to columns and values; a group a row
KERNEL(kChoiceThreads, top_result,
       (TopArgs, int32_t* ids, float* values, const uint64_t* keys, const int32_t* nanRows)) {
  const Place at = PLACE;
  const size_t row = at.x;
  for (uint32_t i = at.index; i < a.k; i += at.threads) {
    const uint64_t key = keys[row * a.k + i];
    values[row * a.valueStride + i] = valueOf(key);
    ids[row * a.idStride + i] = i == 0 && nanRows[row] ? kNanInRow : columnOf(key);
  }
}

KERNEL(kChoiceThreads, clear_words, (RowArgs, uint32_t* x)) {
  const Place at = PLACE;
  for (uint32_t i = at.x * at.threads + at.index; i < a.cols; i += at.groupsX * at.threads) x[i] = 0;
}

KERNELS_END
