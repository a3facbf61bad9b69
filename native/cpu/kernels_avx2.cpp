// AVX2 with FMA and F16C: the table "avx2".
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "cpu/isa.h"
#include "cpu/kernels.h"
#include "format/blocks.h"

PG_ISA_BEGIN("avx2,fma,f16c")
namespace {

constexpr int kTileVectors = 2, kTileTokens = 6;
#include "cpu/simd_avx2.h"
#include "cpu/vector_kernels.h"
#include "cpu/vector_tiles.h"
#include "cpu/vector_attention16.h"
#include "cpu/tiles8_avx2.h"
#include "cpu/blocks_avx2.h"
#include "cpu/tiles8_rows.h"
#include "cpu/dot_avx2.h"
#include "cpu/rows8_avx2.h"
#include "cpu/rows8.h"

}  // namespace
PG_ISA_END

namespace pg {

#define PG_TABLE_NAME kKernelsAvx2
#define PG_TABLE_ISA "avx2"
constexpr int kPanelBytes = 2, kTokenBytes = 2;
#include "cpu/kernel_table.h"

}  // namespace pg
#endif
