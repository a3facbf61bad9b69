// NEON as every 64-bit arm has it.
#if defined(__aarch64__) || defined(_M_ARM64)
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "cpu/kernels/common/isa.h"
#include "retrieval/kernels.h"

namespace pg {
namespace {

#include "cpu/kernels/arm/simd_neon.inl.h"

constexpr int kTile = 8, kGroup = 1;
typedef int16_t Q;
typedef int8_t P;
typedef int32x4_t W;
typedef int16x4_t X;

PG_INLINE int16x4_t wload(const Q* p) { return vld1_s16(p); }
PG_INLINE X wspread(const P* p) { return vdup_n_s16(*p); }
PG_INLINE W wmac(W sums, int16x4_t query, X page) { return vmlal_s16(sums, query, page); }
PG_INLINE W wstart(const Q*, int64_t) { return vdupq_n_s32(0); }
PG_INLINE V wfloats(W sums) { return vcvtq_f32_s32(sums); }

#include "retrieval/maxsim_neon_bits.h"
#include "retrieval/maxsim_tiles.h"

}  // namespace

const MaxSimKernels kMaxSimNeon = {
    .isa = "neon", .lanes = kLanes, .f32 = f32, .group = kGroup, .int8 = int8, .bitLanes = 1, .bits = bits};

}  // namespace pg
#endif
