#pragma once
// What kernels are told beside their buffers: parameter 0 of each, in C++, CUDA and Metal alike. Words of 32 and 64
// bits only, each at a multiple of its size, so that all three lay them out the same way.
//
// Strides are in values of the tensor, offsets too, unless a name says bytes.
#ifdef __METAL_VERSION__
#include <metal_stdlib>
#else
#include <cstdint>
#endif

namespace pg {
namespace gpu {

// Rows of up to three tensors of one shape.
struct RowArgs {
  uint32_t rows, cols;
  uint32_t xStride, yStride, zStride;
  uint32_t yRows;   // y's rows repeat after so many; 0: there is no y
  uint32_t add;     // 1: results are added to what is there
  float number;     // eps, cap or factor: the kernel says which
};

// Fields of blocks, in the order in which they lie in a device's row: all blocks' first field, then all second ones.
struct PackArgs {
  uint32_t rows, blocks, blockBytes, strideBytes;
  uint32_t fields, from[4], bytes[4];
};

// y[m, n] = x[m, k] w[n, k]^T and what becomes of it.
struct ProductArgs {
  uint32_t m, n, k;
  uint32_t xStride, yStride, wStrideBytes;
  uint32_t epilogue;   // ProductEnd
  uint32_t parts;      // of x, where it is rounded: see HalvesArgs
  uint32_t biases;     // 1: the first weight has one; 2: the second
};

// Rows of x as 16-bit numbers: [row][part][padded].
struct HalvesArgs {
  uint32_t rows, cols, xStride, padded;
  uint32_t parts, brain;   // brain: bf16, not f16
};

enum ProductEnd : uint32_t { kStore = 0, kGelu = 1, kAdd = 2, kGeglu = 3 };

struct RopeArgs {
  uint32_t rows, heads, headDim, stride;
  float sign;   // -1: back
};

struct StoreKvArgs {
  uint64_t pages;   // address of the page table
  uint64_t headBytes, rowBytes, keyBytes, valueBytes;   // offsets in a page: of a head, a token, layer's K and V
  uint32_t rows, kvHeads, headDim;
  uint32_t kStride, vStride, positionStride;
};

// One sequence of an attention; see AttentionJob. Offsets from the launch's buffers.
struct AttentionSequence {
  uint64_t pages;
  int64_t qOffset, outOffset, positionOffset;
  int32_t prefix, window, windowInPrefix;
  uint32_t tokens;           // that its cache holds
  uint32_t rows, firstRow;   // its rows are numbered from firstRow on among those of the launch
};

enum : uint32_t { kAttentionSequences = 32 };

struct AttentionArgs {
  uint64_t headBytes, rowBytes, keyBytes, valueBytes;
  uint32_t kvHeads, group, headDim;
  uint32_t qStride, outStride;
  uint32_t sequences, rows, mostRows, pieces;   // rows of all and of the longest; pieces that keys of one may fill
  float scale, softcap;
  AttentionSequence sequence[kAttentionSequences];
};

// Every row sees every row.
struct DenseArgs {
  uint32_t rows, keys, heads, headDim;
  uint32_t qStride, kStride, vStride, outStride;
  float scale;
};

struct TopArgs {
  uint32_t rows, count, stride;   // values or keys of a row
  uint32_t k, chunks;
  uint32_t idStride, valueStride;
};

struct DropoutArgs {
  uint64_t key;
  uint32_t rows, cols, outStride, xStride;
  uint32_t threshold;   // values whose random bits are below it become zero
  float factor;         // of the others
  uint32_t add;
};

struct OuterArgs {
  uint32_t m, rows, cols;
  uint32_t outStride, yStride, xStride;
  float scale;
};

// One KV head's queries and keys.
struct AttentionGradArgs {
  uint32_t n, group, headDim, firstHead, kvHead;
  uint32_t qStride, kStride, doutStride, dqStride, dkStride, dvStride, vStride;
  int32_t prefix, window, windowInPrefix;
  float scale, softcap;
};

}  // namespace gpu
}  // namespace pg
