#pragma once
// Scales of blocks of 256 values: groups with small whole scales, multiplied by one f16 scale (and minimum) of the
// block.
//
// Each group is fitted on its own; then the f16 scale, the groups' scales and the codes are improved in turn, each by
// least squares or trial with the others as they are.
#include <algorithm>

#include "format/blocks.h"
#include "format/quantize_search.h"

namespace pg {

// Groups without minimum: x ~ d * scale[g] * q
template <int Groups, class Codes>
struct ScaledGroups {
  static constexpr int kSize = kSuperBlock / Groups;
  uint16_t d = 0;
  int scales[Groups] = {};

  // Scales in [low, -low - 1]. `reach`: how many neighbours of the rounded scale are tried.
  template <int Count>
  void fit(const float* x, const float* w, const Codes& codes, const float (&targets)[Count], int low, int reach) {
    float own[Groups], most = 0;
    for (int g = 0; g < Groups; ++g) {
      own[g] = searchScale<kSize>(x + g * kSize, w + g * kSize, codes, targets, 1);
      if (std::fabs(own[g]) > std::fabs(most)) most = own[g];
    }
    if (most == 0) return;  // all zeros: d is 0
    d = scaleToHalf(most / float(low));
    float error = assign(x, w, codes, own, low, reach);
    for (int round = 0; round < 2; ++round) {
      const ScaledGroups before = *this;
      d = refit(x, w, codes);
      const float after = assign(x, w, codes, own, low, reach);
      if (!(after < error)) {
        *this = before;
        return;
      }
      error = after;
    }
  }

  float scale(int g) const { return f16ToF32(d) * float(scales[g]); }

 private:
  float assign(const float* x, const float* w, const Codes& codes, const float* own, int low, int reach) {
    const float scaleOfBlock = f16ToF32(d), inv = inverse(scaleOfBlock);
    float total = 0;
    for (int g = 0; g < Groups; ++g) {
      const int near = int(nearestCode(own[g] * inv, float(low), float(-low - 1)));
      float best = INFINITY;
      for (int s = std::max(near - reach, low); s <= std::min(near + reach, -low - 1); ++s) {
        const float error = scaleError<kSize>(x + g * kSize, w + g * kSize, scaleOfBlock * float(s), codes);
        if (error < best) {
          best = error;
          scales[g] = s;
        }
      }
      total += best;
    }
    return total;
  }

  // The best d for the codes that the present scales give.
  uint16_t refit(const float* x, const float* w, const Codes& codes) const {
    float xq = 0, qq = 0;
    for (int g = 0; g < Groups; ++g) {
      const ScaleFit fit = fitScale<kSize>(x + g * kSize, w + g * kSize, inverse(scale(g)), codes);
      xq += float(scales[g]) * fit.xq;
      qq += float(scales[g] * scales[g]) * fit.qq;
    }
    return qq > 0 ? scaleToHalf(xq / qq) : d;
  }
};

// Groups with minimum: x ~ d * scale[g] * q - dmin * min[g], whole q in [0, top], scales and minima in [0, limit]
template <int Groups>
struct LineGroups {
  static constexpr int kSize = kSuperBlock / Groups;
  uint16_t d = 0, dmin = 0;
  int scales[Groups] = {}, mins[Groups] = {};

  template <int Count>
  void fit(const float* x, const float* w, float top, int limit, const float (&spans)[Count]) {
    LineFit own[Groups];
    float steepest = 0, lowest = 0, highest = 0;
    for (int g = 0; g < Groups; ++g) {
      own[g] = searchLine<kSize>(x + g * kSize, w + g * kSize, top, spans, 1);
      lowest = std::min(lowest, own[g].m);
      highest = std::max(highest, own[g].m);
    }
    // Minima have one sign in a block. A block of large positive values takes a negative dmin, which the format allows.
    const bool positive = highest > -lowest;
    for (int g = 0; g < Groups; ++g) {
      if (positive ? own[g].m < 0 : own[g].m > 0) own[g] = {searchRay(x + g * kSize, w + g * kSize, top, spans), 0};
      steepest = std::max(steepest, own[g].d);
    }
    if (steepest == 0 && lowest == 0 && highest == 0) return;  // all zeros
    d = scaleToHalf(steepest / float(limit));
    dmin = scaleToHalf((positive ? -highest : -lowest) / float(limit));
    float error = assign(x, w, own, top, limit);
    for (int round = 0; round < 2; ++round) {
      const LineGroups before = *this;
      refit(x, w, top);
      const float after = assign(x, w, own, top, limit);
      if (!(after < error)) {
        *this = before;
        return;
      }
      error = after;
    }
  }

  float scale(int g) const { return f16ToF32(d) * float(scales[g]); }
  float min(int g) const { return f16ToF32(dmin) * float(mins[g]); }

 private:
  // x ~ d * q without minimum.
  template <int Count>
  static float searchRay(const float* x, const float* w, float top, const float (&spans)[Count]) {
    const float d = searchScale<kSize>(x, w, WholeCodes{0, top}, spans, 1);
    return d > 0 ? d : 0;
  }

  float assign(const float* x, const float* w, const LineFit* own, float top, int limit) {
    const float step = f16ToF32(d), stepMin = f16ToF32(dmin);
    const float inv = inverse(step), invMin = inverse(stepMin);
    float total = 0;
    for (int g = 0; g < Groups; ++g) {
      const int scale = int(nearestCode(own[g].d * inv, 0, float(limit)));
      const int min = int(nearestCode(-own[g].m * invMin, 0, float(limit)));
      float best = INFINITY;
      for (int s = std::max(scale - 1, 0); s <= std::min(scale + 1, limit); ++s)
        for (int m = std::max(min - 1, 0); m <= std::min(min + 1, limit); ++m) {
          const float error = lineError<kSize>(x + g * kSize, w + g * kSize, step * float(s), -stepMin * float(m), top);
          if (error < best) {
            best = error;
            scales[g] = s;
            mins[g] = m;
          }
        }
      total += best;
    }
    return total;
  }

  // The best d and dmin together for the codes that the present scales and minima give.
  void refit(const float* x, const float* w, float top) {
    double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;  // a = scale * q, b = -min
    for (int g = 0; g < Groups; ++g) {
      const float* xg = x + g * kSize;
      const float* wg = w + g * kSize;
      const float inv = inverse(scale(g)), shift = min(g) * inv;
      float q1, q2, xq;
      lineSums<kSize>(xg, wg, inv, shift, top, q1, q2, xq);
      float sw, sx;
      weightedSums<kSize>(xg, wg, sw, sx);
      const double s = scales[g], m = -mins[g];
      aa += s * s * q2;
      ab += s * m * q1;
      bb += m * m * sw;
      xa += s * xq;
      xb += m * sx;
    }
    const double det = aa * bb - ab * ab;
    if (det > 1e-9 * aa * bb) {
      d = scaleToHalf(float((xa * bb - xb * ab) / det));
      dmin = scaleToHalf(float((xb * aa - xa * ab) / det));
    } else if (aa > 0 && bb == 0) {
      d = scaleToHalf(float(xa / aa));
    }
  }
};

}  // namespace pg
