#include <cstring>

#include "format/quantize_blocks.h"
#include "format/quantize_groups.h"

// IQ4_NL and IQ4_XS: sixteen uneven levels.
namespace pg {
namespace {

// Where one level ends and the next begins.
float boundary(int k) { return 0.5f * float(kIq4Values[k] + kIq4Values[k + 1]); }

// The level nearest to t, by comparing against all boundaries: no look-up, so it runs in lanes.
struct Iq4Codes {
  Lanes operator()(Lanes t) const {
    Lanes level = float(kIq4Values[0]);
    for (int k = 0; k < 15; ++k) level += whereGreater(t, boundary(k), float(kIq4Values[k + 1] - kIq4Values[k]));
    return level;
  }
};

// Nibbles of 32 values for the scale d.
void encode(const float* x, float d, uint8_t* qs) {
  const Lanes inv = inverse(d);
  float codes[kBlock];
  for (int i = 0; i < kBlock; i += kLanes) {
    const Lanes t = Lanes::load(x + i) * inv;
    Lanes code;
    for (int k = 0; k < 15; ++k) code += whereGreater(t, boundary(k), 1.0f);
    code.store(codes + i);
  }
  for (int i = 0; i < 16; ++i) qs[i] = uint8_t(int(codes[i]) | int(codes[i + 16]) << 4);
}

constexpr float kTargets[] = {-180, -150, -134, -128, -123, -118, -113, -108, 101, 106, 111, 116, 122, 145};

}  // namespace

void quantize(const float* x, const float* w, BlockIQ4NL* b, int64_t n) {
  for (; n > 0; n -= kBlock, x += kBlock, w += kBlock, ++b) {
    b->d = scaleToHalf(searchScale<kBlock>(x, w, Iq4Codes{}, kTargets, 2));
    encode(x, f16ToF32(b->d), b->qs);
  }
}

void quantize(const float* x, const float* w, BlockIQ4XS* b, int64_t n) {
  for (; n > 0; n -= kSuperBlock, x += kSuperBlock, w += kSuperBlock, ++b) {
    ScaledGroups<8, Iq4Codes> groups;
    groups.fit(x, w, Iq4Codes{}, kTargets, -32, 1);
    b->d = groups.d;
    b->scales_h = 0;
    std::memset(b->scales_l, 0, sizeof b->scales_l);
    for (int g = 0; g < 8; ++g) {
      const int s = groups.scales[g] + 32;
      b->scales_l[g / 2] = uint8_t(b->scales_l[g / 2] | (s & 15) << (4 * (g % 2)));
      b->scales_h = uint16_t(b->scales_h | (s >> 4) << (2 * g));
      encode(x + kBlock * g, groups.scale(g), b->qs + 16 * g);
    }
  }
}

}  // namespace pg
