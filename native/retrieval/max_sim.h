#pragma once
// Late interaction (ColBERT, ColPali): for every vector of a query the best match among a page's, summed.
#include <cstdint>
#include <string>
#include <vector>

#include "retrieval/kernels.h"

namespace pg {

enum class VectorType { f32, int8, binary };

// A page's or a query's vectors.
struct Vectors {
  VectorType type;
  int64_t tokens, dims;
  // f32: float [tokens, dims]. int8: int8_t [tokens, dims], times its row's scale. binary: bits [tokens,
  // bitBytes(dims)], 1 where a value is positive, first value in the highest bit, zeros behind the last.
  const void* data;
  const float* scales;  // [tokens], int8 only
};

// Bytes of a row of bits as callers have it, and in the 64-bit words that kernels want.
inline int64_t bitBytes(int64_t dims) { return (dims + 7) / 8; }
inline int64_t bitWords(int64_t dims) { return (dims + 63) / 64; }
inline int64_t rowBytes(VectorType type, int64_t dims) {
  return type == VectorType::f32 ? dims * 4 : type == VectorType::int8 ? dims : bitBytes(dims);
}

// Of the best instruction set of this machine; PALIGEMMA_ISA forces one.
const MaxSimKernels& chooseMaxSimKernels();
const MaxSimKernels* maxSimKernelsFor(const std::string& isa);  // nullptr: not supported here

// A query, packed for many pages.
class MaxSimQuery {
 public:
  MaxSimQuery(const MaxSimKernels& kernels, const Vectors& query);

  // Sum over query tokens of the largest dot product; of bits: of the largest 1 - 2 * differing bits / dims, the cosine
  // of the signs. `page` has the query's type and dims; its rows of bits take whole words. 0 for a page of no tokens.
  // `scratch`: scratchSize() values of the caller's thread.
  double score(const Vectors& page, float* scratch) const;
  size_t scratchSize() const { return size_t(panels_ * lanes_); }

  VectorType type() const { return type_; }
  int64_t dims() const { return dims_; }

 private:
  const MaxSimKernels* kernels_;
  VectorType type_;
  int64_t tokens_, dims_, lanes_, panels_;
  std::vector<uint8_t> packed_;
  std::vector<float> scales_;  // of the query's tokens, int8 only
};

// Rows of bits in whole words, zeros behind the end.
void widenBits(const uint8_t* rows, int64_t tokens, int64_t dims, uint8_t* words);

}  // namespace pg
