// AVX-512 with VNNI: the table "avx512vnni".
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#include <math.h>
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

PG_ISA_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
namespace {

constexpr int kTileVectors = 2, kTileTokens = 12;
#include "cpu/kernels/x86/simd_avx512.inl.h"
#include "cpu/kernels/common/vector_kernels.inl.h"
#include "cpu/kernels/common/vector_grads.inl.h"
#include "cpu/kernels/common/vector_tiles.inl.h"
#include "cpu/kernels/common/vector_attention16.inl.h"
#include "cpu/kernels/x86/tiles8_avx512.inl.h"
#include "cpu/kernels/x86/unpack8_avx512.inl.h"
#include "cpu/kernels/common/tiles8_rows.inl.h"
#include "cpu/kernels/x86/rows8_avx512.inl.h"
#include "cpu/kernels/common/rows8.inl.h"

}  // namespace
PG_ISA_END

namespace pg {

#define PG_TABLE_NAME kKernelsAvx512Vnni
#define PG_TABLE_ISA "avx512vnni"
constexpr int kPanelBytes = 1, kTokenBytes = 1;
#include "cpu/kernels/common/kernel_table.inl.h"

}  // namespace pg
#endif
