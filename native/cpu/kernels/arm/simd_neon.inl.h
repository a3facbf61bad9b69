// The vector words of vector_kernels.h and vector_tiles.h in NEON (armv8.0). Included after <arm_neon.h>.
#pragma once

typedef float32x4_t V;
constexpr int kLanes = 4;

PG_INLINE V vload(const float* p) { return vld1q_f32(p); }
PG_INLINE void vstore(float* p, V v) { vst1q_f32(p, v); }
PG_INLINE V vset(float f) { return vdupq_n_f32(f); }
PG_INLINE V vzero() { return vdupq_n_f32(0); }
PG_INLINE V vadd(V a, V b) { return vaddq_f32(a, b); }
PG_INLINE V vsub(V a, V b) { return vsubq_f32(a, b); }
PG_INLINE V vmul(V a, V b) { return vmulq_f32(a, b); }
PG_INLINE V vdiv(V a, V b) { return vdivq_f32(a, b); }
PG_INLINE V vmax(V a, V b) { return vmaxq_f32(a, b); }   // NaN stays NaN
PG_INLINE V vmin(V a, V b) { return vminq_f32(a, b); }
PG_INLINE V vfma(V a, V b, V c) { return vfmaq_f32(c, a, b); }    // a * b + c
PG_INLINE V vfnma(V a, V b, V c) { return vfmsq_f32(c, a, b); }   // c - a * b
PG_INLINE V vabs(V a) { return vabsq_f32(a); }
PG_INLINE V vround(V a) { return vrndnq_f32(a); }
// a * 2^n for whole n in [-126, 127]
PG_INLINE V vscale2(V a, V n) {
  return vmulq_f32(a, vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23)));
}
// x < bound ? a : b
PG_INLINE V vselectLess(V x, V bound, V a, V b) { return vbslq_f32(vcltq_f32(x, bound), a, b); }

// The first n < kLanes values; lanes beyond hold zero.
PG_INLINE V vloadFirst(const float* p, int64_t n) {
  float few[4] = {0, 0, 0, 0};
  for (int64_t i = 0; i < 4 && i < n; ++i) few[i] = p[i];
  return vld1q_f32(few);
}
PG_INLINE void vstoreFirst(float* p, V v, int64_t n) {
  float few[4];
  vst1q_f32(few, v);
  for (int64_t i = 0; i < 4 && i < n; ++i) p[i] = few[i];
}
// a where lane < n, else b
PG_INLINE V vfirst(V a, V b, int64_t n) {
  const int32_t lanes[4] = {0, 1, 2, 3};
  return vbslq_f32(vcltq_s32(vld1q_s32(lanes), vdupq_n_s32(int32_t(n))), a, b);
}

PG_INLINE float vsum(V v) {
  const float32x2_t d = vadd_f32(vget_low_f32(v), vget_high_f32(v));
  return vget_lane_f32(vpadd_f32(d, d), 0);
}
PG_INLINE float vmaxAcross(V v) { return vmaxvq_f32(v); }

PG_INLINE V vloadF16(const uint16_t* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
PG_INLINE V vloadBf16(const uint16_t* p) { return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(p)), 16)); }
PG_INLINE V vloadI8(const int8_t* p) {
  int32_t four;
  memcpy(&four, p, 4);
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four))))));
}
// (byte >> shift) & mask of kLanes bytes
PG_INLINE V vloadBits(const uint8_t* p, int shift, int mask) {
  uint32_t four;
  memcpy(&four, p, 4);
  const uint16x4_t wide = vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four))));
  const uint32x4_t bits = vandq_u32(vshlq_u32(vmovl_u16(wide), vdupq_n_s32(-shift)), vdupq_n_u32((uint32_t)mask));
  return vcvtq_f32_u32(bits);
}
PG_INLINE void vstoreF16(uint16_t* p, V v) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(v))); }
PG_INLINE float vhalf(const void* p) {   // one f16
  uint16_t bits;
  memcpy(&bits, p, 2);
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits))), 0);
}
#if defined(_MSC_VER) && !defined(__clang__)
PG_INLINE void vprefetch(const void* p) { __prefetch(p); }
#else
PG_INLINE void vprefetch(const void* p) { __builtin_prefetch(p); }
#endif

// 4 x 4
PG_INLINE void vtranspose(V* v) {
  const float64x2_t a = vreinterpretq_f64_f32(vtrn1q_f32(v[0], v[1])),
                    b = vreinterpretq_f64_f32(vtrn2q_f32(v[0], v[1]));
  const float64x2_t c = vreinterpretq_f64_f32(vtrn1q_f32(v[2], v[3])),
                    d = vreinterpretq_f64_f32(vtrn2q_f32(v[2], v[3]));
  v[0] = vreinterpretq_f32_f64(vzip1q_f64(a, c));
  v[1] = vreinterpretq_f32_f64(vzip1q_f64(b, d));
  v[2] = vreinterpretq_f32_f64(vzip2q_f64(a, c));
  v[3] = vreinterpretq_f32_f64(vzip2q_f64(b, d));
}
