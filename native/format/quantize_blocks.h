#pragma once
// Encoders by type, used through quantizeRow(). Values are finite with |x| <= kLargest, weights > 0, both of n
// elements.
#include "format/blocks.h"

namespace pg {

void quantize(const float* x, const float* w, BlockQ4_0* blocks, int64_t n);
void quantize(const float* x, const float* w, BlockQ4_1* blocks, int64_t n);
void quantize(const float* x, const float* w, BlockQ5_0* blocks, int64_t n);
void quantize(const float* x, const float* w, BlockQ5_1* blocks, int64_t n);
void quantize(const float* x, const float* w, BlockQ8_0* blocks, int64_t n);
void quantize(const float* x, const float* w, BlockIQ4NL* blocks, int64_t n);
void quantize(const float* x, const float* w, BlockIQ4XS* blocks, int64_t n);
void quantize(const float* x, const float* w, BlockQ2K* blocks, int64_t n);
void quantize(const float* x, const float* w, BlockQ3K* blocks, int64_t n);
void quantize(const float* x, const float* w, BlockQ4K* blocks, int64_t n);
void quantize(const float* x, const float* w, BlockQ5K* blocks, int64_t n);
void quantize(const float* x, const float* w, BlockQ6K* blocks, int64_t n);

}  // namespace pg
