#include "cpu/packed_weights.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "base/math.h"

namespace pg {
namespace {

// A fault for every 2 MB instead of 4 KB; a wish, nothing depends on it.
void wishForHugePages(uint8_t* data, size_t bytes) {
#ifdef __linux__
  constexpr uintptr_t kHuge = 2 << 20;
  const uintptr_t at = reinterpret_cast<uintptr_t>(data);
  const uintptr_t begin = roundUp(at, kHuge), end = (at + bytes) / kHuge * kHuge;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data, (void)bytes;
#endif
}

}  // namespace

void PackedWeights::add(ConstHostView weight, std::shared_ptr<const MappedFile> file) {
  const size_t size = gemm_.packedBytes(weight);
  if (size == 0 || memory_) return;   // what comes when the memory is laid out stays as it is
  entries_[weight.data] = {weight.rows, bytes_, std::move(file)};
  bytes_ += roundUp<size_t>(size, 64);
}

bool PackedWeights::reserve() {
  if (memory_ || full_) return !full_;
  memory_ = allocateAligned(bytes_);
  full_ = !memory_;
  if (memory_) wishForHugePages(memory_.get(), bytes_);
  return !full_;
}

const uint8_t* PackedWeights::find(ConstHostView weight, int64_t submission) {
  const auto found = entries_.find(weight.data);
  if (found == entries_.end() || found->second.rows != weight.rows) return nullptr;   // rows of it as they are
  Entry& entry = found->second;
  if (entry.packed) return entry.packed;
  if (entry.submission < 0) entry.submission = submission;
  if (entry.submission == submission || !reserve()) return nullptr;
  uint8_t* to = memory_.get() + entry.offset;
  gemm_.pack(weight, to);
  entry.packed = to;
  entry.file->release(size_t(weight.data - entry.file->data()), weight.bytes());
  return to;
}

}  // namespace pg
