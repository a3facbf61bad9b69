// NEON with 8-bit dot products (armv8.2): the table "dotprod".
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
PG_ISA_BEGIN(PG_TARGET_DOTPROD)
namespace {

constexpr int kTileVectors = 2, kTileTokens = 12;
#include "cpu/kernels/arm/kernels_neon.h"

}  // namespace
PG_ISA_END

namespace pg {

#define PG_TABLE_NAME kKernelsNeonDotprod
#define PG_TABLE_ISA "dotprod"
constexpr int kPanelBytes = 1, kTokenBytes = 1;
#include "cpu/kernels/common/kernel_table.inl.h"

}  // namespace pg
#endif
