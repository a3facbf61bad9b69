// Decode kernels in NEON: a weight row in its file layout times the 8-bit activations of 1 to 8 tokens, 32 columns a
// step, as signed bytes. Included after simd_neon.h.
#pragma once
#include "cpu/token_block.h"

// Four partial sums of 16 products, added to acc.
PG_INLINE int32x4_t dot16(int32x4_t acc, int8x16_t a, int8x16_t b) {
#if defined(PG_NEON_DOT)
  return vdotq_s32(acc, a, b);
#else
  acc = vpadalq_s16(acc, vmull_s8(vget_low_s8(a), vget_low_s8(b)));
  return vpadalq_s16(acc, vmull_high_s8(a, b));
#endif
}

PG_INLINE V dot32(int8x16_t low, int8x16_t high, const int8_t* x) {
  return vcvtq_f32_s32(dot16(dot16(vdupq_n_s32(0), low, vld1q_s8(x)), high, vld1q_s8(x + 16)));
}

struct ScaleMin {
  uint8_t scale[8], min[8];
};

// The eight 6-bit scales and minimums of Q4_K and Q5_K, four at a time.
PG_INLINE ScaleMin scaleMin(const uint8_t* s) {
  uint32_t a, b, c, part[4];
  memcpy(&a, s, 4);
  memcpy(&b, s + 4, 4);
  memcpy(&c, s + 8, 4);
  part[0] = a & 0x3f3f3f3f;
  part[1] = (c & 0x0f0f0f0f) | ((a >> 2) & 0x30303030);
  part[2] = b & 0x3f3f3f3f;
  part[3] = ((c >> 4) & 0x0f0f0f0f) | ((b >> 2) & 0x30303030);
  ScaleMin out;
  memcpy(&out, part, 16);
  return out;
}

// Q4_0 and Q8_0: eight blocks
template <int kTokens, bool kEight>
static void dotQ48_0(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out, int64_t outStride) {
  constexpr int kBytes = kEight ? 34 : 18;
  V acc[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = vzero();
  for (int64_t s = 0; s < supers; ++s) {
    prefetchBlocks(row, 8 * kBytes);
    for (int j = 0; j < 8; ++j, row += kBytes) {
      const float d = vhalf(row);
      int8x16_t low, high;
      if (kEight) {
        low = vld1q_s8((const int8_t*)row + 2);
        high = vld1q_s8((const int8_t*)row + 18);
      } else {
        const uint8x16_t q = vld1q_u8(row + 2);
        low = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(q, vdupq_n_u8(15))), vdupq_n_s8(8));
        high = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(q, 4)), vdupq_n_s8(8));
      }
      for (int t = 0; t < kTokens; ++t) {
        const TokenBlock& b = x[t * tokenBlocks + s];
        acc[t] = vfma(dot32(low, high, b.values + 32 * j), vset(d * b.scales[j]), acc[t]);
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) out[t * outStride] = vsum(acc[t]);
}

template <int kTokens, bool kFive>
static void dotQ45K(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out, int64_t outStride) {
  V acc[kTokens];
  float offset[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = vzero(), offset[t] = 0;
  for (int64_t s = 0; s < supers; ++s, row += kFive ? 176 : 144) {
    prefetchBlocks(row, kFive ? 176 : 144);
    const ScaleMin sm = scaleMin(row + 4);
    const float d = vhalf(row), dmin = vhalf(row + 2);
    const uint8_t* qs = row + (kFive ? 48 : 16);
    for (int g = 0; g < 8; ++g) {
      const uint8x16_t q0 = vld1q_u8(qs + 32 * (g / 2)), q1 = vld1q_u8(qs + 32 * (g / 2) + 16), mask = vdupq_n_u8(15);
      uint8x16_t low = g % 2 ? vshrq_n_u8(q0, 4) : vandq_u8(q0, mask), high = g % 2 ? vshrq_n_u8(q1, 4) : vandq_u8(q1, mask);
      if (kFive) {
        const uint8x16_t bit = vdupq_n_u8((uint8_t)(1 << g)), sixteen = vdupq_n_u8(16);
        low = vorrq_u8(low, vandq_u8(vtstq_u8(vld1q_u8(row + 16), bit), sixteen));
        high = vorrq_u8(high, vandq_u8(vtstq_u8(vld1q_u8(row + 32), bit), sixteen));
      }
      for (int t = 0; t < kTokens; ++t) {
        const TokenBlock& b = x[t * tokenBlocks + s];
        acc[t] = vfma(dot32(vreinterpretq_s8_u8(low), vreinterpretq_s8_u8(high), b.values + 32 * g), vset(d * sm.scale[g] * b.scales[g]), acc[t]);
        offset[t] += dmin * sm.min[g] * b.sums[g];
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) out[t * outStride] = vsum(acc[t]) - offset[t];
}

template <int kTokens>
static void dotQ6K(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out, int64_t outStride) {
  V acc[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = vzero();
  for (int64_t s = 0; s < supers; ++s, row += 210) {
    prefetchBlocks(row, 210);
    const float d = vhalf(row + 208);
    const int8_t* scales = (const int8_t*)row + 192;
    for (int part = 0; part < 8; ++part) {   // 32 columns; ql serves parts j and j + 2 of a half, qh all four
      const int half = part / 4, j = part % 4;
      int8x16_t q[2];
      for (int i = 0; i < 2; ++i) {
        const uint8x16_t low = vld1q_u8(row + 64 * half + 32 * (j % 2) + 16 * i);
        const uint8x16_t bits = vshlq_u8(vld1q_u8(row + 128 + 32 * half + 16 * i), vdupq_n_s8((int8_t)(-2 * j)));
        const uint8x16_t nibble = j < 2 ? vandq_u8(low, vdupq_n_u8(15)) : vshrq_n_u8(low, 4);
        const uint8x16_t six = vorrq_u8(nibble, vshlq_n_u8(vandq_u8(bits, vdupq_n_u8(3)), 4));
        q[i] = vsubq_s8(vreinterpretq_s8_u8(six), vdupq_n_s8(32));
      }
      for (int t = 0; t < kTokens; ++t) {
        const TokenBlock& b = x[t * tokenBlocks + s];
        const float dx = d * b.scales[part];
        for (int i = 0; i < 2; ++i)
          acc[t] = vfma(vcvtq_f32_s32(dot16(vdupq_n_s32(0), q[i], vld1q_s8(b.values + 32 * part + 16 * i))), vset(dx * scales[2 * part + i]), acc[t]);
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) out[t * outStride] = vsum(acc[t]);
}

static void quantizeBlock(const float* x, int64_t n, TokenBlock* to) {
  for (int g = 0; g < 8; ++g) {
    const int64_t left = n - 32 * g < 32 ? n - 32 * g : 32;
    float few[32] = {0};
    if (left > 0) memcpy(few, x + 32 * g, size_t(left) * sizeof(float));
    V top = vzero();
    for (int i = 0; i < 32; i += 4) top = vmaxnmq_f32(top, vabs(vload(few + i)));
    const float max = vmaxAcross(top), scale = max / 127;
    const V inverse = vset(max > 0 ? 127 / max : 0);
    int32_t sums[2];
    for (int half = 0; half < 2; ++half) {
      int32x4_t q[4], total = vdupq_n_s32(0);
      for (int i = 0; i < 4; ++i) {
        q[i] = vcvtnq_s32_f32(vmul(vload(few + 16 * half + 4 * i), inverse));
        total = vaddq_s32(total, q[i]);
      }
      const int16x8_t a = vcombine_s16(vqmovn_s32(q[0]), vqmovn_s32(q[1])), b = vcombine_s16(vqmovn_s32(q[2]), vqmovn_s32(q[3]));
      vst1q_s8(to->values + 32 * g + 16 * half, vcombine_s8(vqmovn_s16(a), vqmovn_s16(b)));
      sums[half] = vaddvq_s32(total);
    }
    to->scales[g] = scale;
    to->sums[g] = scale * (float)(sums[0] + sums[1]);
    to->sums16[2 * g] = scale * (float)sums[0];
    to->sums16[2 * g + 1] = scale * (float)sums[1];
  }
}

// The multiply-add instruction of the 8-bit kernels from registers alone; operations done.
static double peak8(int64_t rounds) {
  int32x4_t acc[16];
  int8x16_t a = vdupq_n_s8((int8_t)rounds);
  for (int i = 0; i < 16; ++i) acc[i] = vdupq_n_s32(i);
  for (int64_t n = 0; n < rounds; ++n) {
    PG_UNROLL
    for (int i = 0; i < 16; ++i) {
#if defined(__GNUC__) || defined(__clang__)
      __asm__ volatile("" : "+w"(a));   // or the product would leave the loop
#endif
#if defined(PG_NEON_I8MM)
      acc[i] = vmmlaq_s32(acc[i], a, a);
#else
      acc[i] = dot16(acc[i], a, a);
#endif
    }
  }
  for (int i = 1; i < 16; ++i) acc[0] = vorrq_s32(acc[0], acc[i]);
#if defined(PG_NEON_I8MM)
  const double ops = 64;
#else
  const double ops = 32;
#endif
  return (double)rounds * 16 * ops + (vaddvq_s32(acc[0]) == 12345);
}
