#include "format/quantize_blocks.h"

#include <cstring>

#include "format/quantize_search.h"

// Types of 32 values with one f16 scale, and an f16 minimum for Q4_1 and Q5_1.
namespace pg {
namespace {

// Codes nearest to (x - m) / d, as bytes lo..hi minus lo.
void encode(const float* x, float d, float m, float lo, float hi, uint8_t* codes) {
  const float inv = inverse(d);
  float q[kBlock];
  for (int i = 0; i < kBlock; i += kLanes) (nearestCode((Lanes::load(x + i) - m) * inv, lo, hi) - lo).store(q + i);
  for (int i = 0; i < kBlock; ++i) codes[i] = uint8_t(int(q[i]));
}

void packNibbles(const uint8_t* codes, uint8_t* qs) {
  for (int i = 0; i < 16; ++i) qs[i] = uint8_t((codes[i] & 15) | codes[i + 16] << 4);
}

void packFifthBits(const uint8_t* codes, uint8_t* qh) {
  uint32_t high = 0;
  for (int i = 0; i < kBlock; ++i) high |= uint32_t(codes[i] >> 4) << i;
  std::memcpy(qh, &high, 4);
}

// The extreme value of a block lands near either end of the codes; the best place is a little outside or inside of it.
constexpr float kTargets4[] = {-13.0f, -10.5f, -9.2f, -8.7f, -8.3f, -8.0f, -7.7f, -7.3f, -6.9f,
                               6.3f,   6.7f,   7.0f,  7.3f,  7.6f,  8.0f,  8.6f,  10.0f};
constexpr float kTargets5[] = {-25.0f, -20.0f, -17.5f, -16.4f, -16.0f, -15.6f, -15.2f,
                               14.4f,  14.8f,  15.2f,  15.6f,  16.2f,  19.0f};

}  // namespace

void quantize(const float* x, const float* w, BlockQ4_0* b, int64_t n) {
  const WholeCodes codes{-8, 7};
  for (; n > 0; n -= kBlock, x += kBlock, w += kBlock, ++b) {
    b->d = scaleToHalf(searchScale<kBlock>(x, w, codes, kTargets4, 2));
    uint8_t q[kBlock];
    encode(x, f16ToF32(b->d), 0, codes.lo, codes.hi, q);
    packNibbles(q, b->qs);
  }
}

void quantize(const float* x, const float* w, BlockQ5_0* b, int64_t n) {
  const WholeCodes codes{-16, 15};
  for (; n > 0; n -= kBlock, x += kBlock, w += kBlock, ++b) {
    b->d = scaleToHalf(searchScale<kBlock>(x, w, codes, kTargets5, 2));
    uint8_t q[kBlock];
    encode(x, f16ToF32(b->d), 0, codes.lo, codes.hi, q);
    packNibbles(q, b->qs);
    packFifthBits(q, b->qh);
  }
}

void quantize(const float* x, const float* w, BlockQ4_1* b, int64_t n) {
  for (; n > 0; n -= kBlock, x += kBlock, w += kBlock, ++b) {
    const LineFit fit = searchLine<kBlock>(x, w, 15, kSpans4, 4);
    b->d = scaleToHalf(fit.d);
    b->m = minimumToHalf(fit.m);
    uint8_t q[kBlock];
    encode(x, f16ToF32(b->d), f16ToF32(b->m), 0, 15, q);
    packNibbles(q, b->qs);
  }
}

void quantize(const float* x, const float* w, BlockQ5_1* b, int64_t n) {
  for (; n > 0; n -= kBlock, x += kBlock, w += kBlock, ++b) {
    const LineFit fit = searchLine<kBlock>(x, w, 31, kSpans5, 4);
    b->d = scaleToHalf(fit.d);
    b->m = minimumToHalf(fit.m);
    uint8_t q[kBlock];
    encode(x, f16ToF32(b->d), f16ToF32(b->m), 0, 31, q);
    packNibbles(q, b->qs);
    packFifthBits(q, b->qh);
  }
}

void quantize(const float* x, const float*, BlockQ8_0* b, int64_t n) {
  for (; n > 0; n -= kBlock, x += kBlock, ++b) {
    const float most = std::fabs(extreme<kBlock>(x));
    b->d = scaleToHalf(most / 127);
    // in the subnormal range of f16 the scale may have been rounded down far enough to cut off the extreme
    if (most >= kSmallest && f16ToF32(b->d) * 127.5f < most && most < 1) ++b->d;
    const float inv = inverse(f16ToF32(b->d));
    float q[kBlock];
    for (int i = 0; i < kBlock; i += kLanes) nearestCode(Lanes::load(x + i) * inv, -127, 127).store(q + i);
    for (int i = 0; i < kBlock; ++i) b->qs[i] = int8_t(int(q[i]));
  }
}

}  // namespace pg
