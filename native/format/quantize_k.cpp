#include <cstring>

#include "format/quantize_blocks.h"
#include "format/quantize_groups.h"

// Q2_K .. Q6_K
namespace pg {
namespace {

template <int Size, class Codes>
void encodeGroup(const float* x, float d, const Codes& codes, int8_t* out) {
  const float inv = inverse(d);
  float q[Size];
  for (int i = 0; i < Size; i += kLanes) codes(Lanes::load(x + i) * inv).store(q + i);
  for (int i = 0; i < Size; ++i) out[i] = int8_t(int(q[i]));
}

template <int Groups>
void encodeLines(const LineGroups<Groups>& groups, const float* x, float top, uint8_t* out) {
  constexpr int kSize = kSuperBlock / Groups;
  for (int g = 0; g < Groups; ++g) {
    const float inv = inverse(groups.scale(g)), min = groups.min(g);
    float q[kSize];
    for (int i = 0; i < kSize; i += kLanes)
      nearestCode((Lanes::load(x + g * kSize + i) + min) * inv, 0, top).store(q + i);
    for (int i = 0; i < kSize; ++i) out[g * kSize + i] = uint8_t(int(q[i]));
  }
}

// Two bits a value: byte 32 * h + l takes x[128 * h + 32 * j + l] in bits 2j.
void packPairs(const uint8_t* q, uint8_t* qs) {
  for (int h = 0; h < 2; ++h)
    for (int l = 0; l < 32; ++l) {
      const uint8_t* p = q + 128 * h + l;
      qs[32 * h + l] = uint8_t((p[0] & 3) | (p[32] & 3) << 2 | (p[64] & 3) << 4 | (p[96] & 3) << 6);
    }
}

// Four bits a value: byte 32 * k + l takes x[64 * k + l] low and x[64 * k + 32 + l] high.
void packHalves(const uint8_t* q, uint8_t* qs) {
  for (int k = 0; k < 4; ++k)
    for (int l = 0; l < 32; ++l) qs[32 * k + l] = uint8_t((q[64 * k + l] & 15) | q[64 * k + 32 + l] << 4);
}

// The inverse of unpackScaleMin().
void packScaleMins(const int* scales, const int* mins, uint8_t* out) {
  for (int g = 0; g < 4; ++g) {
    out[g] = uint8_t(scales[g] | (scales[g + 4] >> 4) << 6);
    out[g + 4] = uint8_t(mins[g] | (mins[g + 4] >> 4) << 6);
    out[g + 8] = uint8_t((scales[g + 4] & 15) | (mins[g + 4] & 15) << 4);
  }
}

constexpr float kTargets3[] = {-7.5f, -6.0f, -5.0f, -4.5f, -4.2f, -3.9f, -3.6f, -3.3f,
                               -3.0f, 2.6f,  2.9f,  3.2f,  3.5f,  4.0f,  5.0f};
constexpr float kTargets6[] = {-44.0f, -36.0f, -32.6f, -32.0f, -31.5f, -31.0f, 30.5f, 31.0f, 31.5f, 36.0f};
constexpr float kSpans2[] = {3.0f, 2.0f, 2.4f, 2.7f, 3.4f, 3.8f, 4.3f, 5.2f, 6.5f};

}  // namespace

void quantize(const float* x, const float* w, BlockQ2K* b, int64_t n) {
  for (; n > 0; n -= kSuperBlock, x += kSuperBlock, w += kSuperBlock, ++b) {
    LineGroups<16> groups;
    groups.fit(x, w, 3, 15, kSpans2);
    b->d = groups.d;
    b->dmin = groups.dmin;
    for (int g = 0; g < 16; ++g) b->scales[g] = uint8_t(groups.scales[g] | groups.mins[g] << 4);
    uint8_t q[kSuperBlock];
    encodeLines(groups, x, 3, q);
    packPairs(q, b->qs);
  }
}

void quantize(const float* x, const float* w, BlockQ3K* b, int64_t n) {
  const WholeCodes codes{-4, 3};
  for (; n > 0; n -= kSuperBlock, x += kSuperBlock, w += kSuperBlock, ++b) {
    ScaledGroups<16, WholeCodes> groups;
    groups.fit(x, w, codes, kTargets3, -32, 1);
    b->d = groups.d;
    std::memset(b->scales, 0, sizeof b->scales);
    std::memset(b->hmask, 0, sizeof b->hmask);
    uint8_t q[kSuperBlock];
    for (int g = 0; g < 16; ++g) {
      const int s = groups.scales[g] + 32;
      b->scales[g % 8] = uint8_t(b->scales[g % 8] | (s & 15) << (g < 8 ? 0 : 4));
      b->scales[8 + g % 4] = uint8_t(b->scales[8 + g % 4] | (s >> 4) << (2 * (g / 4)));
      int8_t code[16];
      encodeGroup<16>(x + 16 * g, groups.scale(g), codes, code);
      for (int i = 0; i < 16; ++i) q[16 * g + i] = uint8_t(code[i] + 4);
    }
    packPairs(q, b->qs);
    for (int k = 0; k < 8; ++k)
      for (int l = 0; l < 32; ++l) b->hmask[l] = uint8_t(b->hmask[l] | (q[32 * k + l] >> 2) << k);
  }
}

void quantize(const float* x, const float* w, BlockQ4K* b, int64_t n) {
  for (; n > 0; n -= kSuperBlock, x += kSuperBlock, w += kSuperBlock, ++b) {
    LineGroups<8> groups;
    groups.fit(x, w, 15, 63, kSpans4);
    b->d = groups.d;
    b->dmin = groups.dmin;
    packScaleMins(groups.scales, groups.mins, b->scales);
    uint8_t q[kSuperBlock];
    encodeLines(groups, x, 15, q);
    packHalves(q, b->qs);
  }
}

void quantize(const float* x, const float* w, BlockQ5K* b, int64_t n) {
  for (; n > 0; n -= kSuperBlock, x += kSuperBlock, w += kSuperBlock, ++b) {
    LineGroups<8> groups;
    groups.fit(x, w, 31, 63, kSpans5);
    b->d = groups.d;
    b->dmin = groups.dmin;
    packScaleMins(groups.scales, groups.mins, b->scales);
    uint8_t q[kSuperBlock];
    encodeLines(groups, x, 31, q);
    packHalves(q, b->qs);
    std::memset(b->qh, 0, sizeof b->qh);
    for (int g = 0; g < 8; ++g)
      for (int l = 0; l < 32; ++l) b->qh[l] = uint8_t(b->qh[l] | (q[32 * g + l] >> 4) << g);
  }
}

void quantize(const float* x, const float* w, BlockQ6K* b, int64_t n) {
  const WholeCodes codes{-32, 31};
  for (; n > 0; n -= kSuperBlock, x += kSuperBlock, w += kSuperBlock, ++b) {
    ScaledGroups<16, WholeCodes> groups;
    groups.fit(x, w, codes, kTargets6, -128, 1);
    b->d = groups.d;
    uint8_t q[kSuperBlock];
    for (int g = 0; g < 16; ++g) {
      b->scales[g] = int8_t(groups.scales[g]);
      int8_t code[16];
      encodeGroup<16>(x + 16 * g, groups.scale(g), codes, code);
      for (int i = 0; i < 16; ++i) q[16 * g + i] = uint8_t(code[i] + 32);
    }
    for (int h = 0; h < 2; ++h) {
      const uint8_t* p = q + 128 * h;
      for (int l = 0; l < 64; ++l) b->ql[64 * h + l] = uint8_t((p[l] & 15) | p[64 + l] << 4);
      for (int l = 0; l < 32; ++l)
        b->qh[32 * h + l] = uint8_t(p[l] >> 4 | (p[32 + l] >> 4) << 2 | (p[64 + l] >> 4) << 4 | (p[96 + l] >> 4) << 6);
    }
  }
}

}  // namespace pg
