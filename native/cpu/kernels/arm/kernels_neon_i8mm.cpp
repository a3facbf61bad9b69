// NEON with 8-bit matrix products (armv8.6): the table "i8mm".
#if defined(__aarch64__) || defined(_M_ARM64)
#include <arm_neon.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "cpu/kernels/common/isa.h"
#include "cpu/kernels/common/kernels.h"
#include "format/dequantize.h"

#define PG_NEON_DOT
#define PG_NEON_I8MM
PG_ISA_BEGIN(PG_TARGET_I8MM)
namespace {

constexpr int kTileVectors = 2, kTileTokens = 12;
#include "cpu/kernels/arm/kernels_neon.h"

}  // namespace
PG_ISA_END

namespace pg {

#define PG_TABLE_NAME kKernelsNeonI8mm
#define PG_TABLE_ISA "i8mm"
constexpr int kPanelBytes = 1, kTokenBytes = 1;
#include "cpu/kernels/common/kernel_table.inl.h"

}  // namespace pg
#endif
