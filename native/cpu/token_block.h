// 8-bit activations of the decode kernels that take columns in their order: 256 of a token.
// Included between PG_ISA_BEGIN and PG_ISA_END.
#pragma once

struct TokenBlock {
  int8_t values[256];
  float scales[8];    // of 32 columns
  float sums[8];      // scale * (sum of the 32 values)
  float sums16[16];   // the same of every 16
};
