#pragma once
// Tensor element types, with the ids and block sizes of GGUF.
#include <cstddef>
#include <cstdint>

namespace pg {

// Values are GGUF's type ids. 4, 5, 31-33 and 36-38 were removed from the format; 9 (Q8_1) and 15 (Q8_K) exist only in
// memory.
enum class DType : uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  iq2_xxs = 16,
  iq2_xs = 17,
  iq3_xxs = 18,
  iq1_s = 19,
  iq4_nl = 20,
  iq3_s = 21,
  iq2_s = 22,
  iq4_xs = 23,
  i8 = 24,
  i16 = 25,
  i32 = 26,
  i64 = 27,
  f64 = 28,
  iq1_m = 29,
  bf16 = 30,
  tq1_0 = 34,
  tq2_0 = 35,
  mxfp4 = 39,
  nvfp4 = 40,
  q1_0 = 41,
  q2_0 = 42,
};

struct DTypeInfo {
  DType type;
  const char* name;   // as GGUF tools print it: "Q4_K"
  uint32_t block;     // values a block holds
  uint32_t bytes;     // bytes a block takes (format/blocks.h)
  bool quantized;     // false: plain numbers
  bool weights;       // holds weights: quantize.h reads it
  bool written;       // quantize.h writes it
};

// All that is known of the types.
inline constexpr DTypeInfo kDTypes[] = {
    {DType::f32, "F32", 1, 4, false, true, true},
    {DType::f16, "F16", 1, 2, false, true, true},
    {DType::bf16, "BF16", 1, 2, false, true, true},
    {DType::f64, "F64", 1, 8, false, true, false},
    {DType::i8, "I8", 1, 1, false, false, false},
    {DType::i16, "I16", 1, 2, false, false, false},
    {DType::i32, "I32", 1, 4, false, false, false},
    {DType::i64, "I64", 1, 8, false, false, false},
    {DType::q4_0, "Q4_0", 32, 18, true, true, true},
    {DType::q4_1, "Q4_1", 32, 20, true, true, true},
    {DType::q5_0, "Q5_0", 32, 22, true, true, true},
    {DType::q5_1, "Q5_1", 32, 24, true, true, true},
    {DType::q8_0, "Q8_0", 32, 34, true, true, true},
    {DType::q2_k, "Q2_K", 256, 84, true, true, true},
    {DType::q3_k, "Q3_K", 256, 110, true, true, true},
    {DType::q4_k, "Q4_K", 256, 144, true, true, true},
    {DType::q5_k, "Q5_K", 256, 176, true, true, true},
    {DType::q6_k, "Q6_K", 256, 210, true, true, true},
    {DType::iq2_xxs, "IQ2_XXS", 256, 66, true, true, false},
    {DType::iq2_xs, "IQ2_XS", 256, 74, true, true, false},
    {DType::iq2_s, "IQ2_S", 256, 82, true, true, false},
    {DType::iq3_xxs, "IQ3_XXS", 256, 98, true, true, false},
    {DType::iq3_s, "IQ3_S", 256, 110, true, true, false},
    {DType::iq1_s, "IQ1_S", 256, 50, true, true, false},
    {DType::iq1_m, "IQ1_M", 256, 56, true, true, false},
    {DType::iq4_nl, "IQ4_NL", 32, 18, true, true, true},
    {DType::iq4_xs, "IQ4_XS", 256, 136, true, true, true},
    {DType::tq1_0, "TQ1_0", 256, 54, true, true, false},
    {DType::tq2_0, "TQ2_0", 256, 66, true, true, false},
    {DType::mxfp4, "MXFP4", 32, 17, true, true, false},
    {DType::nvfp4, "NVFP4", 64, 36, true, true, false},
    {DType::q1_0, "Q1_0", 128, 18, true, true, false},
    {DType::q2_0, "Q2_0", 64, 18, true, true, false},
};

// nullptr for an id that no file may use.
constexpr const DTypeInfo* dtypeInfo(DType type) {
  for (const DTypeInfo& info : kDTypes)
    if (info.type == type) return &info;
  return nullptr;
}

inline const char* dtypeName(DType type) {
  const DTypeInfo* info = dtypeInfo(type);
  return info ? info->name : "?";
}

// Bytes of a row of n values; n must be a multiple of the block size.
inline size_t bytesFor(DType type, int64_t n) {
  const DTypeInfo* info = dtypeInfo(type);
  return info ? size_t(n) / info->block * info->bytes : 0;
}

}  // namespace pg
