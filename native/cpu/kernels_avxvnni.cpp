// AVX2 with AVX-VNNI, for processors without AVX-512: the table "avxvnni".
#include "cpu/isa.h"

#if defined(PG_HAS_AVXVNNI)
#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "cpu/kernels.h"
#include "format/blocks.h"

PG_ISA_BEGIN("avx2,fma,f16c,avxvnni")
namespace {

constexpr int kTileVectors = 2, kTileTokens = 6;
#include "cpu/simd_avx2.h"
#include "cpu/vector_kernels.h"
#include "cpu/vector_tiles.h"
#include "cpu/vector_attention16.h"
#include "cpu/tiles8_avxvnni.h"
#include "cpu/blocks_avx2.h"
#include "cpu/tiles8_rows.h"
#include "cpu/dot_avxvnni.h"
#include "cpu/rows8_avx2.h"
#include "cpu/rows8.h"

}  // namespace
PG_ISA_END

namespace pg {

#define PG_TABLE_NAME kKernelsAvxVnni
#define PG_TABLE_ISA "avxvnni"
constexpr int kPanelBytes = 1, kTokenBytes = 1;
#include "cpu/kernel_table.h"

}  // namespace pg
#endif
