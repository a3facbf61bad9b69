// AVX-512 with VNNI, and AMX for products of many rows: the table "amx".
#include "cpu/kernels/common/isa.h"

#if defined(PG_HAS_AMX)
#include <immintrin.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "cpu/kernels/common/kernels.h"
#include "format/dequantize.h"

#if defined(__GNUC__) && !defined(__clang__)
// gcc 12 warns inside its own intrinsics.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define PG_TILE_CONFIGURE(config) _tile_loadconfig(config)
#define PG_TILE_RELEASE() _tile_release()
#define PG_TILE_ZERO(n) _tile_zero(n)
#define PG_TILE_LOAD(n, from, stride) _tile_loadd(n, from, stride)
#define PG_TILE_STORE(n, to, stride) _tile_stored(n, to, stride)
#define PG_TILE_MULTIPLY(c, a, b) _tile_dpbssd(c, a, b)

PG_ISA_BEGIN("avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,amx-tile,amx-int8")
namespace {

constexpr int kTileVectors = 2, kTileTokens = 12;
#include "cpu/kernels/x86/simd_avx512.inl.h"
#include "cpu/kernels/common/vector_kernels.inl.h"
#include "cpu/kernels/common/vector_grads.inl.h"
#include "cpu/kernels/common/vector_tiles.inl.h"
#include "cpu/kernels/common/vector_attention16.inl.h"
#include "cpu/kernels/x86/unpack8_avx512.inl.h"
#include "cpu/kernels/x86/tiles8_amx.inl.h"
#include "cpu/kernels/common/tiles8_rows.inl.h"
#include "cpu/kernels/x86/rows8_avx512.inl.h"
#include "cpu/kernels/common/rows8.inl.h"

}  // namespace
PG_ISA_END

namespace pg {

#define PG_TABLE_NAME kKernelsAmx
#define PG_TABLE_ISA "amx"
constexpr int kPanelBytes = 1, kTokenBytes = 1;
#include "cpu/kernels/common/kernel_table.inl.h"

}  // namespace pg
#endif
