// NEON with 8-bit dot products (armv8.2).
#if defined(__aarch64__) || defined(_M_ARM64)
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "cpu/kernels/common/isa.h"
#include "retrieval/kernels.h"

PG_ISA_BEGIN(PG_TARGET_DOTPROD)
namespace pg {
namespace {

#include "cpu/kernels/arm/simd_neon.inl.h"

constexpr int kTile = 8, kGroup = 4;
typedef int8_t Q;
typedef int8_t P;
typedef int32x4_t W;
typedef int8x8_t X;   // the first four count: sdot multiplies by a lane

PG_INLINE int8x16_t wload(const Q* p) { return vld1q_s8(p); }
PG_INLINE X wspread(const P* p) {
  float four;   // a load to a vector register, no way through another
  memcpy(&four, p, 4);
  return vreinterpret_s8_f32(vset_lane_f32(four, vdup_n_f32(0), 0));
}
PG_INLINE W wmac(W sums, int8x16_t query, X page) { return vdotq_lane_s32(sums, query, page, 0); }
PG_INLINE W wstart(const Q*, int64_t) { return vdupq_n_s32(0); }
PG_INLINE V wfloats(W sums) { return vcvtq_f32_s32(sums); }

#include "retrieval/maxsim_neon_bits.h"
#include "retrieval/maxsim_tiles.h"

}  // namespace
}  // namespace pg
PG_ISA_END

namespace pg {

const MaxSimKernels kMaxSimNeonDotprod = {
    .isa = "dotprod", .lanes = kLanes, .f32 = f32, .group = kGroup, .int8 = int8, .bitLanes = 1, .bits = bits};

}  // namespace pg
#endif
