// AVX2 with AVX-VNNI, for processors without AVX-512: the table "avxvnni".
#include "cpu/kernels/common/isa.h"

#if defined(PG_HAS_AVXVNNI)
#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "cpu/kernels/common/kernels.h"
#include "format/dequantize.h"

PG_ISA_BEGIN("avx2,fma,f16c,avxvnni")
namespace {

constexpr int kTileVectors = 2, kTileTokens = 6;
#include "cpu/kernels/x86/simd_avx2.inl.h"
#include "cpu/kernels/common/vector_kernels.inl.h"
#include "cpu/kernels/common/vector_grads.inl.h"
#include "cpu/kernels/common/vector_tiles.inl.h"
#include "cpu/kernels/common/vector_attention16.inl.h"
#include "cpu/kernels/x86/bytes_avx2.inl.h"
#include "cpu/kernels/x86/tiles8_avxvnni.inl.h"
#include "cpu/kernels/x86/blocks_avx2.inl.h"
#include "cpu/kernels/common/tiles8_rows.inl.h"
#include "cpu/kernels/x86/dot_avxvnni.inl.h"
#include "cpu/kernels/x86/rows8_avx2.inl.h"
#include "cpu/kernels/common/rows8.inl.h"

}  // namespace
PG_ISA_END

namespace pg {

#define PG_TABLE_NAME kKernelsAvxVnni
#define PG_TABLE_ISA "avxvnni"
constexpr int kPanelBytes = 1, kTokenBytes = 1;
#include "cpu/kernels/common/kernel_table.inl.h"

}  // namespace pg
#endif
