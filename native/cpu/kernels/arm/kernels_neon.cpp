// NEON as every aarch64 has it: the table "neon".
#if defined(__aarch64__) || defined(_M_ARM64)
#include <arm_neon.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "cpu/kernels/common/isa.h"
#include "cpu/kernels/common/kernels.h"
#include "format/dequantize.h"

namespace {

constexpr int kTileVectors = 2, kTileTokens = 12;
#include "cpu/kernels/arm/kernels_neon.h"

}  // namespace

namespace pg {

#define PG_TABLE_NAME kKernelsNeon
#define PG_TABLE_ISA "neon"
constexpr int kPanelBytes = 1, kTokenBytes = 1;
#include "cpu/kernels/common/kernel_table.inl.h"

}  // namespace pg
#endif
