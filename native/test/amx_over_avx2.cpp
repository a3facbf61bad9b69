// A table: AMX's tiles, emulated, beside AVX2, so that machines without AMX run them.
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "cpu/kernels/common/isa.h"
#include "cpu/kernels/common/kernels.h"
#include "format/dequantize.h"

#if defined(__GNUC__) && !defined(__clang__)
// gcc 12 warns inside its own intrinsics.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

PG_ISA_BEGIN("avx2,fma,f16c")
namespace {

constexpr int kTileVectors = 2, kTileTokens = 6;
#include "cpu/kernels/x86/simd_avx2.inl.h"
#include "cpu/kernels/common/vector_kernels.inl.h"
#include "cpu/kernels/common/vector_grads.inl.h"
#include "cpu/kernels/common/vector_tiles.inl.h"
#include "cpu/kernels/common/vector_attention16.inl.h"
#include "cpu/kernels/x86/bytes_avx2.inl.h"
#include "cpu/kernels/x86/blocks_avx2.inl.h"
#include "amx_emulator.h"
#include "cpu/kernels/x86/tiles8_amx.inl.h"
#include "cpu/kernels/common/tiles8_rows.inl.h"
#include "cpu/kernels/x86/dot_avx2.inl.h"
#include "cpu/kernels/x86/rows8_avx2.inl.h"
#include "cpu/kernels/common/rows8.inl.h"

}  // namespace
PG_ISA_END

namespace pg {

#define PG_TABLE_NAME kAmxOverAvx2
#define PG_TABLE_ISA "amx-over-avx2"
constexpr int kPanelBytes = 1, kTokenBytes = 1;
extern const Kernels kAmxOverAvx2;
#include "cpu/kernels/common/kernel_table.inl.h"

}  // namespace pg
#endif
