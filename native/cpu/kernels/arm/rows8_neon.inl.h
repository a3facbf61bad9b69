// Decode kernels in NEON: a weight row in its file layout times the 8-bit activations of 1 to 8 tokens.
// Included after blocks_neon.h.
//
// 128 columns at a time: the partial sums of four groups of 32 are added in pairs to one vector, a lane a group, which
// is converted, scaled and added once. Offsets and minimums enter as scale * (sum of activations), four groups at once.
#pragma once

// 256 columns of a token
struct TokenBlock {
  int8_t values[256];
  float scales[8], sums[8];  // of 32 columns: scale, and scale * (sum of values)
};

PG_INLINE int32x4_t addPairs(int32x4_t a, int32x4_t b, int32x4_t c, int32x4_t d) {
  return vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
}

// dotGroups: sums of 32 products of four groups, a lane each; w[2 * g], w[2 * g + 1]: weights of group g, of kBits
// bits. dotHalfGroups: the same of 16 columns, the first of each group with kWhich = 0, the last with 1.
#if defined(PG_NEON_DOT)
// The four partial sums of a group, converted as tiles8_neon.h does: the first starts at its bits of 1.5 * 2^23.
PG_INLINE int32x4_t firstStart() { return vsetq_lane_s32(0x4b400000, vdupq_n_s32(0), 0); }

template <int kBits>
PG_INLINE V dotGroups(const int8x16_t* w, const int8_t* x) {
  int32x4_t sums[4];
  PG_UNROLL
  for (int g = 0; g < 4; ++g)
    sums[g] =
        vdotq_s32(vdotq_s32(firstStart(), w[2 * g], vld1q_s8(x + 32 * g)), w[2 * g + 1], vld1q_s8(x + 32 * g + 16));
  return sumValue(addPairs(sums[0], sums[1], sums[2], sums[3]));
}

template <int kWhich>
PG_INLINE V dotHalfGroups(const int8x16_t* w, const int8_t* x) {
  int32x4_t sums[4];
  PG_UNROLL
  for (int g = 0; g < 4; ++g) sums[g] = vdotq_s32(firstStart(), w[2 * g + kWhich], vld1q_s8(x + 32 * g + 16 * kWhich));
  return sumValue(addPairs(sums[0], sums[1], sums[2], sums[3]));
}
#else
// Sums stay in 16 bits while they fit.
PG_INLINE int16x8_t multiply16(int8x16_t w, int8x16_t x) {
  return vmlal_high_s8(vmull_s8(vget_low_s8(w), vget_low_s8(x)), w, x);
}
PG_INLINE int16x8_t multiplyAdd16(int16x8_t sum, int8x16_t w, int8x16_t x) {
  return vmlal_high_s8(vmlal_s8(sum, vget_low_s8(w), vget_low_s8(x)), w, x);
}

template <int kBits>
PG_INLINE V dotGroups(const int8x16_t* w, const int8_t* x) {
  if (kBits == 8) {   // 2 * 128 * 127 fits
    int32x4_t sums[4];
    PG_UNROLL
    for (int g = 0; g < 4; ++g)
      sums[g] = vpadalq_s16(vpaddlq_s16(multiply16(w[2 * g], vld1q_s8(x + 32 * g))),
                            multiply16(w[2 * g + 1], vld1q_s8(x + 32 * g + 16)));
    return vcvtq_f32_s32(addPairs(sums[0], sums[1], sums[2], sums[3]));
  }
  int16x8_t sums[4];   // 4 * 31 * 127 fits twice, 4 * 15 * 127 four times
  PG_UNROLL
  for (int g = 0; g < 4; ++g)
    sums[g] = multiplyAdd16(multiply16(w[2 * g], vld1q_s8(x + 32 * g)), w[2 * g + 1], vld1q_s8(x + 32 * g + 16));
  const int16x8_t low = vpaddq_s16(sums[0], sums[1]), high = vpaddq_s16(sums[2], sums[3]);
  return vcvtq_f32_s32(kBits == 4 ? vpaddlq_s16(vpaddq_s16(low, high))
                                  : vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
}

template <int kWhich>
PG_INLINE V dotHalfGroups(const int8x16_t* w, const int8_t* x) {
  int16x8_t sums[4];   // 2 * 32 * 127 fits four times
  PG_UNROLL
  for (int g = 0; g < 4; ++g) sums[g] = multiply16(w[2 * g + kWhich], vld1q_s8(x + 32 * g + 16 * kWhich));
  return vcvtq_f32_s32(vpaddlq_s16(vpaddq_s16(vpaddq_s16(sums[0], sums[1]), vpaddq_s16(sums[2], sums[3]))));
}
#endif

// A token's sum is computed here and nothing of the next one's loaded before. gcc would load for several tokens, more
// than there are registers; clang would load in order but compute later, and keep what it loaded on the stack.
PG_INLINE void finishToken(V* sum) {
#if defined(__GNUC__) || defined(__clang__)
  __asm__ volatile("" : "+w"(*sum) : : "memory");
#else
  (void)sum;
#endif
}

// What half kHalf of a super-block adds for every token: weights are slope * w - base, four groups of each.
template <int kTokens, int kBits, int kHalf, bool kBase>
PG_INLINE void addHalf(V* acc, const TokenBlock* x, int64_t tokenBlocks, const int8x16_t* w, V slope, V base) {
  PG_UNROLL
  for (int t = 0; t < kTokens; ++t) {
    const TokenBlock& b = x[t * tokenBlocks];
    if (kBase) acc[t] = vfnma(base, vload(b.sums + 4 * kHalf), acc[t]);
    acc[t] = vfma(dotGroups<kBits>(w, b.values + 128 * kHalf), vmul(slope, vload(b.scales + 4 * kHalf)), acc[t]);
    finishToken(acc + t);
  }
}

template <int kTokens, int kHalf, bool kEight>
PG_INLINE void addHalf48_0(V* acc, const uint8_t* row, const TokenBlock* x, int64_t tokenBlocks, V d) {
  int8x16_t w[8];
  PG_UNROLL
  for (int g = 0; g < 4; ++g) {
    const uint8_t* q = row + (kEight ? pg::kBytesQ8_0 : pg::kBytesQ4_0) * (4 * kHalf + g) + 2;
    w[2 * g] = kEight ? vld1q_s8((const int8_t*)q) : vreinterpretq_s8_u8(lowNibbles(vld1q_u8(q)));
    w[2 * g + 1] = kEight ? vld1q_s8((const int8_t*)q + 16) : vreinterpretq_s8_u8(highNibbles(vld1q_u8(q)));
  }
  addHalf<kTokens, kEight ? 8 : 4, kHalf, !kEight>(acc, x, tokenBlocks, w, d, vmul(d, vset(8)));
}

// Q4_0 and Q8_0: eight blocks
template <int kTokens, bool kEight>
static void dotQ48_0(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out,
                     int64_t outStride) {
  constexpr int kBytes = kEight ? pg::kBytesQ8_0 : pg::kBytesQ4_0;
  V acc[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = vzero();
  for (int64_t s = 0; s < supers; ++s, ++x, row += 8 * kBytes) {
    prefetchBlocks(row, 8 * kBytes);
    V d[2];
    eightScales<kBytes>(row, d);
    addHalf48_0<kTokens, 0, kEight>(acc, row, x, tokenBlocks, d[0]);
    addHalf48_0<kTokens, 1, kEight>(acc, row, x, tokenBlocks, d[1]);
  }
  for (int t = 0; t < kTokens; ++t) out[t * outStride] = vsum(acc[t]);
}

template <int kTokens, int kHalf, bool kFive>
PG_INLINE void addHalf45K(V* acc, const uint8_t* row, const TokenBlock* x, int64_t tokenBlocks, V slope, V base) {
  uint8x16_t q[8];
  int8x16_t w[8];
  nibblesK<kHalf, kFive>(row, q);
  PG_UNROLL
  for (int i = 0; i < 8; ++i) w[i] = vreinterpretq_s8_u8(q[i]);
  addHalf<kTokens, kFive ? 5 : 4, kHalf, true>(acc, x, tokenBlocks, w, slope, base);
}

template <int kTokens, bool kFive>
static void dotQ45K(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out,
                    int64_t outStride) {
  V acc[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = vzero();
  for (int64_t s = 0; s < supers; ++s, ++x, row += kFive ? pg::kBytesQ5K : pg::kBytesQ4K) {
    prefetchBlocks(row, kFive ? pg::kBytesQ5K : pg::kBytesQ4K);
    V slope[2], base[2];
    slopes(row, slope, base);
    addHalf45K<kTokens, 0, kFive>(acc, row, x, tokenBlocks, slope[0], base[0]);
    addHalf45K<kTokens, 1, kFive>(acc, row, x, tokenBlocks, slope[1], base[1]);
  }
  for (int t = 0; t < kTokens; ++t) out[t * outStride] = vsum(acc[t]);
}

template <int kTokens>
static void dotQ6K(const uint8_t* row, int64_t supers, const TokenBlock* x, int64_t tokenBlocks, float* out,
                   int64_t outStride) {
  V acc[kTokens];
  for (int t = 0; t < kTokens; ++t) acc[t] = vzero();
  for (int64_t s = 0; s < supers; ++s, ++x, row += pg::kBytesQ6K) {
    prefetchBlocks(row, pg::kBytesQ6K);
    const V d = vset(vhalf(row + 208));
    for (int h = 0; h < 2; ++h) {
      // a scale per 16 columns: of the first and of the last halves of four groups
      const int16x8_t eight = vmovl_s8(vld1_s8((const int8_t*)row + 192 + 8 * h));
      const V low = vcvtq_f32_s32(vmovl_s16(vget_low_s16(eight))), high = vcvtq_f32_s32(vmovl_high_s16(eight));
      const V first = vmul(vuzp1q_f32(low, high), d), last = vmul(vuzp2q_f32(low, high), d);
      int8x16_t w[8];
      sixBitsK(row, h, w);
      PG_UNROLL
      for (int t = 0; t < kTokens; ++t) {
        const TokenBlock& b = x[t * tokenBlocks];
        const V a = dotHalfGroups<0>(w, b.values + 128 * h), c = dotHalfGroups<1>(w, b.values + 128 * h);
        acc[t] = vfma(vfma(c, last, vmul(a, first)), vload(b.scales + 4 * h), acc[t]);
        finishToken(acc + t);
      }
    }
  }
  for (int t = 0; t < kTokens; ++t) out[t * outStride] = vsum(acc[t]);
}

static void quantizeBlock(const float* x, int64_t n, TokenBlock* to) {
  float few[256];
  if (n < 256) {
    memset(few, 0, sizeof few);
    x = (const float*)memcpy(few, x, size_t(n) * sizeof(float));
  }
  for (int g = 0; g < 8; ++g, x += 32) {
    V v[8];
    PG_UNROLL
    for (int i = 0; i < 8; ++i) v[i] = vload(x + 4 * i);
    const float max = largest<8>(v);
    const V inverse = vset(max > 0 ? 127 / max : 0);
    const int8x16_t low = roundTo8(v, inverse), high = roundTo8(v + 4, inverse);
    vst1q_s8(to->values + 32 * g, low);
    vst1q_s8(to->values + 32 * g + 16, high);
    to->scales[g] = max / 127;
    to->sums[g] = max / 127 * (float)(vaddlvq_s8(low) + vaddlvq_s8(high));
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
      __asm__ volatile("" : "+w"(a));  // or the product would leave the loop
#endif
#if defined(PG_NEON_I8MM)
      acc[i] = vmmlaq_s32(acc[i], a, a);
#elif defined(PG_NEON_DOT)
      acc[i] = vdotq_s32(acc[i], a, a);
#else
      acc[i] = vpadalq_s16(acc[i], multiply16(a, a));
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
