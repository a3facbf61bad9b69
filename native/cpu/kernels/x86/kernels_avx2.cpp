// AVX2 with FMA and F16C: the table "avx2".
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "cpu/kernels/common/isa.h"
#include "cpu/kernels/common/kernels.h"
#include "format/dequantize.h"

PG_ISA_BEGIN("avx2,fma,f16c")
namespace {

constexpr int kTileVectors = 2, kTileTokens = 6;
#include "cpu/kernels/x86/simd_avx2.inl.h"
#include "cpu/kernels/common/vector_kernels.inl.h"
#include "cpu/kernels/common/vector_grads.inl.h"
#include "cpu/kernels/common/vector_tiles.inl.h"
#include "cpu/kernels/common/vector_attention16.inl.h"
#include "cpu/kernels/x86/tiles8_avx2.inl.h"
#include "cpu/kernels/x86/blocks_avx2.inl.h"
#include "cpu/kernels/common/tiles8_rows.inl.h"
#include "cpu/kernels/x86/dot_avx2.inl.h"
#include "cpu/kernels/x86/rows8_avx2.inl.h"
#include "cpu/kernels/common/rows8.inl.h"
#include "cpu/kernels/x86/levels_avx2.inl.h"

}  // namespace
PG_ISA_END

namespace pg {

#define PG_TABLE_NAME kKernelsAvx2
#define PG_TABLE_ISA "avx2"
constexpr int kPanelBytes = 2, kTokenBytes = 2;
#include "cpu/kernels/common/kernel_table.inl.h"

}  // namespace pg
#endif
