#pragma once
// Scalar quantizers and dequantizers: the oracle of every fast kernel, and the converter's worker.
#include "base/dtype.h"

namespace pg {

bool canQuantize(DType type);    // f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k..q6_k, iq4_nl, iq4_xs
bool canDequantize(DType type);  // every floating-point and quantized type of dtype.h

// n is a multiple of the type's block size. Bit-exact with the reference; no FMA contraction in these files.
void dequantizeRow(DType type, const void* src, float* dst, int64_t n);

// importance: n weights >= 0, one per column, or nullptr. NaN and infinities in src never reach a scale: NaN counts
// as 0, infinities as the largest finite value of the row. F32, F16 and BF16 keep them.
void quantizeRow(DType type, const float* src, void* dst, int64_t n, const float* importance = nullptr);

}  // namespace pg
