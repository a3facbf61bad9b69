#include <cstring>

#include "base/half.h"
#include "format/dequantize.h"
#include "format/iq_tables.h"

// The types with code books. A group has a scale dl; value = dl * level * sign, in this order.
namespace pg {
namespace {

uint32_t word(const void* p) {
  uint32_t w;
  std::memcpy(&w, p, 4);
  return w;
}

// `size` levels of a book entry; bit i of signs makes value i negative.
template <int size>
void expand(float* y, float dl, const uint8_t* levels, uint32_t signs) {
  for (int i = 0; i < size; ++i) {
    const float value = dl * float(levels[i]);
    y[i] = signs >> i & 1 ? -value : value;
  }
}

}  // namespace

void dequantize(const BlockIQ2XXS* b, float* y, int64_t n) {
  for (; n > 0; n -= kSuperBlock, ++b) {
    const float d = f16ToF32(b->d);
    for (int g = 0; g < 8; ++g) {
      const uint32_t indices = word(b->qs + 4 * g), rest = word(b->qs + 4 * g + 2);
      const float dl = d * (0.5f + float(rest >> 28)) * 0.25f;
      for (int k = 0; k < 4; ++k, y += 8)
        expand<8>(y, dl, &kIq2xxsBook[8 * (indices >> (8 * k) & 255)], expandSigns(rest >> (7 * k) & 127));
    }
  }
}

void dequantize(const BlockIQ2XS* b, float* y, int64_t n) {
  for (; n > 0; n -= kSuperBlock, ++b) {
    const float d = f16ToF32(b->d);
    for (int k = 0; k < 32; ++k, y += 8) {
      const int scale = b->scales[k / 4] >> (k % 4 < 2 ? 0 : 4) & 15;
      const float dl = d * (0.5f + float(scale)) * 0.25f;
      expand<8>(y, dl, &kIq2xsBook[8 * (b->qs[k] & 511)], expandSigns(b->qs[k] >> 9));
    }
  }
}

void dequantize(const BlockIQ2S* b, float* y, int64_t n) {
  for (; n > 0; n -= kSuperBlock, ++b) {
    const float d = f16ToF32(b->d);
    for (int k = 0; k < 32; ++k, y += 8) {
      const int scale = b->scales[k / 4] >> (k % 4 < 2 ? 0 : 4) & 15;
      const float dl = d * (0.5f + float(scale)) * 0.25f;
      const int index = b->qs[k] | (b->qh[k / 4] >> (2 * (k % 4)) & 3) << 8;
      expand<8>(y, dl, &kIq2sBook[8 * index], b->signs[k]);
    }
  }
}

void dequantize(const BlockIQ3XXS* b, float* y, int64_t n) {
  for (; n > 0; n -= kSuperBlock, ++b) {
    const float d = f16ToF32(b->d);
    for (int g = 0; g < 8; ++g) {
      const uint32_t rest = word(b->signs + 4 * g);
      const float dl = d * (0.5f + float(rest >> 28)) * 0.5f;
      for (int k = 0; k < 4; ++k, y += 8) {
        const uint8_t signs = expandSigns(rest >> (7 * k) & 127);
        const uint8_t* indices = b->qs + 8 * g + 2 * k;
        expand<4>(y, dl, &kIq3xxsBook[4 * indices[0]], signs);
        expand<4>(y + 4, dl, &kIq3xxsBook[4 * indices[1]], signs >> 4);
      }
    }
  }
}

void dequantize(const BlockIQ3S* b, float* y, int64_t n) {
  for (; n > 0; n -= kSuperBlock, ++b) {
    const float d = f16ToF32(b->d);
    for (int k = 0; k < 64; ++k, y += 4) {
      const int group = k / 8;
      const float dl = d * float(1 + 2 * (b->scales[group / 2] >> (4 * (group % 2)) & 15));
      const int index = b->qs[k] | (b->qh[group] >> (k % 8) & 1) << 8;
      expand<4>(y, dl, &kIq3sBook[4 * index], b->signs[k / 2] >> (4 * (k % 2)));
    }
  }
}

void dequantize(const BlockIQ1S* b, float* y, int64_t n) {
  for (; n > 0; n -= kSuperBlock, ++b) {
    const float d = f16ToF32(b->d);
    for (int k = 0; k < 32; ++k, y += 8) {
      const int high = b->qh[k / 4];
      const float dl = d * float(2 * (high >> 12 & 7) + 1);
      const float offset = high & 0x8000 ? -0.125f : 0.125f;
      const int8_t* levels = &kIq1Book[size_t(8) * (b->qs[k] | (high >> (3 * (k % 4)) & 7) << 8)];
      for (int i = 0; i < 8; ++i) y[i] = dl * (float(levels[i]) + offset);
    }
  }
}

void dequantize(const BlockIQ1M* b, float* y, int64_t n) {
  for (; n > 0; n -= kSuperBlock, ++b) {
    uint16_t scales[4];
    std::memcpy(scales, b->scales, 8);
    const float d =
        f16ToF32(uint16_t(scales[0] >> 12 | (scales[1] >> 12) << 4 | (scales[2] >> 12) << 8 | (scales[3] >> 12) << 12));
    for (int k = 0; k < 32; ++k, y += 8) {
      const float dl = d * float(2 * (scales[k / 8] >> (3 * (k % 8 / 2)) & 7) + 1);
      const int high = b->qh[k / 2] >> (4 * (k % 2)) & 15;
      const float offset = high & 8 ? -0.125f : 0.125f;
      const int8_t* levels = &kIq1Book[size_t(8) * (b->qs[k] | (high & 7) << 8)];
      for (int i = 0; i < 8; ++i) y[i] = dl * (float(levels[i]) + offset);
    }
  }
}

}  // namespace pg
