// What the decode and the tile kernels in NEON read from quantized blocks. Included after simd_neon.h.
#pragma once

// The f16 scales of eight blocks of kBytes bytes.
template <int kBytes>
PG_INLINE void eightScales(const uint8_t* p, V* d) {
  uint16x4_t low = vdup_n_u16(0), high = low;
  low = vld1_lane_u16((const uint16_t*)p, low, 0);
  low = vld1_lane_u16((const uint16_t*)(p + kBytes), low, 1);
  low = vld1_lane_u16((const uint16_t*)(p + 2 * kBytes), low, 2);
  low = vld1_lane_u16((const uint16_t*)(p + 3 * kBytes), low, 3);
  high = vld1_lane_u16((const uint16_t*)(p + 4 * kBytes), high, 0);
  high = vld1_lane_u16((const uint16_t*)(p + 5 * kBytes), high, 1);
  high = vld1_lane_u16((const uint16_t*)(p + 6 * kBytes), high, 2);
  high = vld1_lane_u16((const uint16_t*)(p + 7 * kBytes), high, 3);
  d[0] = vcvt_f32_f16(vreinterpret_f16_u16(low));
  d[1] = vcvt_f32_f16(vreinterpret_f16_u16(high));
}

// Eight unsigned numbers of 32 bits' bytes (low, high) times d.
PG_INLINE void eightBytes(uint32_t low, uint32_t high, float d, V* to) {
  const uint16x8_t wide = vmovl_u8(vcreate_u8(low | (uint64_t)high << 32));
  to[0] = vmul(vcvtq_f32_u32(vmovl_u16(vget_low_u16(wide))), vset(d));
  to[1] = vmul(vcvtq_f32_u32(vmovl_u16(vget_high_u16(wide))), vset(d));
}

// Slope and base of the eight groups of a Q4_K or Q5_K super-block (they begin alike): x = slope * q - base.
PG_INLINE void slopes(const uint8_t* row, V* slope, V* base) {
  uint32_t a, b, c;   // twelve bytes of 6-bit numbers, taken four at a time
  memcpy(&a, row + 4, 4);
  memcpy(&b, row + 8, 4);
  memcpy(&c, row + 12, 4);
  eightBytes(a & 0x3f3f3f3f, (c & 0x0f0f0f0f) | ((a >> 2) & 0x30303030), vhalf(row), slope);
  eightBytes(b & 0x3f3f3f3f, ((c >> 4) & 0x0f0f0f0f) | ((b >> 2) & 0x30303030), vhalf(row + 2), base);
}

PG_INLINE uint8x16_t lowNibbles(uint8x16_t q) { return vandq_u8(q, vdupq_n_u8(15)); }
PG_INLINE uint8x16_t highNibbles(uint8x16_t q) { return vshrq_n_u8(q, 4); }

// Bits kFrom and up of every byte of q moved to bit kTo and up; others may come along.
template <int kFrom, int kTo>
PG_INLINE uint8x16_t moveBits(uint8x16_t q) {
  if constexpr (kFrom < kTo) return vshlq_n_u8(q, kTo - kFrom);
  else if constexpr (kFrom > kTo) return vshrq_n_u8(q, kFrom - kTo);
  else return q;
}

// The fifth bit of group kGroup (0..7) of Q5_K joins its nibbles.
template <int kGroup>
PG_INLINE uint8x16_t withFifth(uint8x16_t nibbles, uint8x16_t fifths) {
  return vbslq_u8(vdupq_n_u8(16), moveBits<kGroup, 4>(fifths), nibbles);
}

// Four groups of 32 columns of Q4_K, or Q5_K (kFive): half kHalf of a super-block in [group][first and last 16].
template <int kHalf, bool kFive>
PG_INLINE void nibblesK(const uint8_t* row, uint8x16_t* w) {
  const uint8_t* qs = row + (kFive ? 48 : 16) + 64 * kHalf;
  PG_UNROLL
  for (int i = 0; i < 2; ++i) {
    const uint8x16_t a = vld1q_u8(qs + 16 * i), b = vld1q_u8(qs + 32 + 16 * i);
    w[i] = lowNibbles(a), w[2 + i] = highNibbles(a), w[4 + i] = lowNibbles(b), w[6 + i] = highNibbles(b);
    if (kFive) {
      const uint8x16_t fifths = vld1q_u8(row + 16 + 16 * i);
      w[i] = withFifth<4 * kHalf>(w[i], fifths);
      w[2 + i] = withFifth<4 * kHalf + 1>(w[2 + i], fifths);
      w[4 + i] = withFifth<4 * kHalf + 2>(w[4 + i], fifths);
      w[6 + i] = withFifth<4 * kHalf + 3>(w[6 + i], fifths);
    }
  }
}

template <int kGroup>   // of a half: 0..3
PG_INLINE int8x16_t sixBits(uint8x16_t nibbles, uint8x16_t bits) {
  return vsubq_s8(vreinterpretq_s8_u8(vbslq_u8(vdupq_n_u8(0x30), moveBits<2 * kGroup, 4>(bits), nibbles)),
                  vdupq_n_s8(32));
}

// 128 columns of Q6_K, half h of a super-block, as -32..31
PG_INLINE void sixBitsK(const uint8_t* row, int h, int8x16_t* w) {
  PG_UNROLL
  for (int i = 0; i < 2; ++i) {
    const uint8x16_t a = vld1q_u8(row + 64 * h + 16 * i), b = vld1q_u8(row + 64 * h + 32 + 16 * i);
    const uint8x16_t bits = vld1q_u8(row + 128 + 32 * h + 16 * i);
    w[i] = sixBits<0>(lowNibbles(a), bits);
    w[2 + i] = sixBits<1>(lowNibbles(b), bits);
    w[4 + i] = sixBits<2>(highNibbles(a), bits);
    w[6 + i] = sixBits<3>(highNibbles(b), bits);
  }
}

// Whole numbers below 2^15 in size, rounded to even: adding 1.5 * 2^23 leaves no room for a fraction and the number
// itself in the low bits. Converting takes four times as long on a Cortex-A76 (fcvtns, sqxtn).
PG_INLINE int16x8_t roundTo16(V a, V b) {
  const V magic = vset(12582912);
  return vuzp1q_s16(vreinterpretq_s16_f32(vadd(a, magic)), vreinterpretq_s16_f32(vadd(b, magic)));
}
// 16 numbers of -127..127 times `by`
PG_INLINE int8x16_t roundTo8(const V* v, V by) {
  const int16x8_t a = roundTo16(vmul(v[0], by), vmul(v[1], by)), b = roundTo16(vmul(v[2], by), vmul(v[3], by));
  return vuzp1q_s8(vreinterpretq_s8_s16(a), vreinterpretq_s8_s16(b));
}

// The largest size among kVectors vectors
template <int kVectors>
PG_INLINE float largest(const V* v) {
  V top[2] = {vabs(v[0]), vabs(v[1])};
  PG_UNROLL
  for (int i = 2; i < kVectors; ++i) top[i % 2] = vmaxnmq_f32(top[i % 2], vabs(v[i]));
  return vmaxAcross(vmaxnmq_f32(top[0], top[1]));
}
