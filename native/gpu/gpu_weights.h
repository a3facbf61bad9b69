#pragma once
// How a row of weights lies in a GPU's memory. Blocks are taken apart: their large fields first, so that the bulk of a
// row is read in aligned words of 16 bytes by neighbouring threads; rows begin at multiples of 16 bytes and, where they
// are plain numbers, go on with zeros up to a whole group of 32 values.
#include <cstdint>

#include "base/dtype.h"
#include "gpu/gpu_args.h"

namespace pg::gpu {

// Whether kernels read the type as it is; others become f16 when they are placed.
bool keepsType(DType type);
// rows = 0; strideBytes is of a placed row.
PackArgs packing(DType type, int64_t cols);
// One row, on the host: from the file's form to the device's, and back.
void packRow(const PackArgs& packing, const uint8_t* blocks, uint8_t* packed);
void unpackRow(const PackArgs& packing, const uint8_t* packed, uint8_t* blocks);

}  // namespace pg::gpu
