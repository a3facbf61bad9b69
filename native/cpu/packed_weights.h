#pragma once
// Weights that only ever meet many rows, in the form that tiles read: unpacked once, instead of for every picture, in
// place of the file's pages. From the second submission that uses them on, for a program that looks at one picture only
// should not wait for it.
#include <memory>
#include <unordered_map>

#include "cpu/cpu_memory.h"
#include "cpu/gemm.h"

namespace pg {

class PackedWeights {
 public:
  explicit PackedWeights(Gemm& gemm) : gemm_(gemm) {}

  // The weight may be packed; it lies in the file.
  void add(ConstHostView weight, std::shared_ptr<const MappedFile> file);
  // The packed form, where there is one by now, for a product in the submission of that number.
  const uint8_t* find(ConstHostView weight, int64_t submission);

 private:
  struct Entry {
    int64_t rows;
    size_t offset;  // in memory_
    std::shared_ptr<const MappedFile> file;
    int64_t submission = -1;  // that used it first
    const uint8_t* packed = nullptr;
  };
  bool reserve();

  Gemm& gemm_;
  std::unordered_map<const uint8_t*, Entry> entries_;  // by where the weight lies
  size_t bytes_ = 0;  // of all that may come
  AlignedBytes memory_;  // pages that nothing was packed into are not in use
  bool full_ = false;  // there is no memory for it: nothing needs it
};

}  // namespace pg
