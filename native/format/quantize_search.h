#pragma once
// Search for block scales: weighted least squares over a few roundings of a block.
//
// Every loop runs over a fixed number of lanes with one accumulator each, so that compilers turn it into vector code
// without being allowed to reorder sums. Inputs are finite, |x| <= kLargest, weights > 0.
#include <cmath>
#include <cstdint>

#include "base/half.h"

namespace pg {

constexpr float kLargestHalf = 65504.0f;
constexpr float kLargest = 1e9f;              // more than any type can represent; squares stay far from overflow
constexpr float kSmallest = 2.98023224e-8f;   // 2^-25: below it, every type with an f16 scale gives 0

// To the nearest whole number, ties to even, for |x| < 2^22: the sum has no fraction bits left.
inline float roundToInt(float x) { return (x + 12582912.0f) - 12582912.0f; }

inline float clampTo(float x, float lo, float hi) {
  x = x < lo ? lo : x;
  return x > hi ? hi : x;
}

inline float nearestCode(float x, float lo, float hi) { return roundToInt(clampTo(x, lo, hi)); }

constexpr int kLanes = 8;

struct Lanes {
  float v[kLanes] = {};
  float sum() const { return ((v[0] + v[4]) + (v[2] + v[6])) + ((v[1] + v[5]) + (v[3] + v[7])); }
};

inline uint16_t minimumToHalf(float m) { return f32ToF16(clampTo(m, -kLargestHalf, kLargestHalf)); }

// Not infinite, and not 0 where the smallest f16 still represents something.
inline uint16_t scaleToHalf(float d) {
  const uint16_t h = f32ToF16(clampTo(d, -kLargestHalf, kLargestHalf));
  return d != 0 && (h & 0x7fff) == 0 ? uint16_t(h | 1) : h;
}

// 1 / d, or 0 for a scale so small that no code can help.
inline float inverse(float d) { return std::fabs(d) > 1e-30f ? 1.0f / d : 0.0f; }

// The value with the largest magnitude, with its sign.
template <int N>
float extreme(const float* x) {
  Lanes low, high;
  for (int i = 0; i < N; i += kLanes)
    for (int l = 0; l < kLanes; ++l) {
      low.v[l] = x[i + l] < low.v[l] ? x[i + l] : low.v[l];
      high.v[l] = x[i + l] > high.v[l] ? x[i + l] : high.v[l];
    }
  float min = 0, max = 0;
  for (int l = 0; l < kLanes; ++l) {
    min = low.v[l] < min ? low.v[l] : min;
    max = high.v[l] > max ? high.v[l] : max;
  }
  return -min > max ? min : max;
}

template <int N>
void range(const float* x, float& min, float& max) {
  Lanes low, high;
  for (int l = 0; l < kLanes; ++l) low.v[l] = high.v[l] = x[l];
  for (int i = kLanes; i < N; i += kLanes)
    for (int l = 0; l < kLanes; ++l) {
      low.v[l] = x[i + l] < low.v[l] ? x[i + l] : low.v[l];
      high.v[l] = x[i + l] > high.v[l] ? x[i + l] : high.v[l];
    }
  min = low.v[0];
  max = high.v[0];
  for (int l = 1; l < kLanes; ++l) {
    min = low.v[l] < min ? low.v[l] : min;
    max = high.v[l] > max ? high.v[l] : max;
  }
}

// x ~ d * q with whole q in [lo, hi].
struct WholeCodes {
  float lo, hi;
  float operator()(float t) const { return nearestCode(t, lo, hi); }
};

// Sums for the best d of x ~ d * q, where q are the codes nearest to x * inverse.
struct ScaleFit {
  float xq = 0, qq = 0;
  float scale() const { return qq > 0 ? xq / qq : 0.0f; }
  // By how much the best d lowers the squared error below that of all zeros.
  float gain() const { return qq > 0 ? xq * xq / qq : 0.0f; }
};

template <int N, class Codes>
ScaleFit fitScale(const float* x, const float* w, float inverse, const Codes& codes) {
  Lanes xq, qq;
  for (int i = 0; i < N; i += kLanes)
    for (int l = 0; l < kLanes; ++l) {
      const float q = codes(x[i + l] * inverse);
      const float wq = w[i + l] * q;
      xq.v[l] += wq * x[i + l];
      qq.v[l] += wq * q;
    }
  return {xq.sum(), qq.sum()};
}

// Tries the scales that put the extreme value on each of `targets`, improves the best by `rounds` of
// rounding and refitting. Returns d, 0 for a block of zeros.
template <int N, int Count, class Codes>
float searchScale(const float* x, const float* w, const Codes& codes, const float (&targets)[Count], int rounds) {
  const float most = extreme<N>(x);
  if (std::fabs(most) < kSmallest) return 0;
  const float inv = 1.0f / most;
  ScaleFit best;
  float bestGain = 0;
  for (const float target : targets) {
    const ScaleFit fit = fitScale<N>(x, w, target * inv, codes);
    const float gain = fit.gain();
    if (gain > bestGain) {
      bestGain = gain;
      best = fit;
    }
  }
  for (int round = 0; round < rounds; ++round) {
    const ScaleFit fit = fitScale<N>(x, w, inverse(best.scale()), codes);
    if (!(fit.gain() > bestGain)) break;
    bestGain = fit.gain();
    best = fit;
  }
  return best.scale();
}

// Squared error of x ~ d * q, q nearest.
template <int N, class Codes>
float scaleError(const float* x, const float* w, float d, const Codes& codes) {
  const float inv = inverse(d);
  Lanes error;
  for (int i = 0; i < N; i += kLanes)
    for (int l = 0; l < kLanes; ++l) {
      const float e = d * codes(x[i + l] * inv) - x[i + l];
      error.v[l] += w[i + l] * e * e;
    }
  return error.sum();
}

// x ~ d * q + m, whole q in [0, top]
struct LineFit {
  float d = 0, m = 0;
};

// Sums over codes q = nearest(x * inverse + shift): x is centred (sum w x = 0), so the best line through (q, x) has
// slope xq / var.
template <int N>
void lineSums(const float* x, const float* w, float inverse, float shift, float top, float& q1, float& q2, float& xq) {
  Lanes s1, s2, sx;
  for (int i = 0; i < N; i += kLanes)
    for (int l = 0; l < kLanes; ++l) {
      const float q = nearestCode(x[i + l] * inverse + shift, 0.0f, top);
      const float wq = w[i + l] * q;
      s1.v[l] += wq;
      s2.v[l] += wq * q;
      sx.v[l] += wq * x[i + l];
    }
  q1 = s1.sum();
  q2 = s2.sum();
  xq = sx.sum();
}

// Free offset. `spans` are the numbers of steps that the range of x is stretched over; the middle of the range stays in
// the middle of the codes.
template <int N, int Count>
LineFit searchLine(const float* x, const float* w, float top, const float (&spans)[Count], int rounds) {
  float min, max;
  range<N>(x, min, max);
  Lanes sw, swx;
  for (int i = 0; i < N; i += kLanes)
    for (int l = 0; l < kLanes; ++l) {
      sw.v[l] += w[i + l];
      swx.v[l] += w[i + l] * x[i + l];
    }
  const float weight = sw.sum(), mean = swx.sum() / weight;
  if (max - min < kSmallest) return {0, mean};
  float centred[N];
  for (int i = 0; i < N; ++i) centred[i] = x[i] - mean;

  const float perUnit = 1.0f / (max - min), middle = 0.5f * (min + max) - mean;
  LineFit best{0, mean};
  float bestGain = 0;
  const auto attempt = [&](float inverse, float shift) {
    float q1, q2, xq;
    lineSums<N>(centred, w, inverse, shift, top, q1, q2, xq);
    const float var = q2 - q1 * q1 / weight;
    if (!(var > 0)) return false;
    const float gain = xq * xq / var;
    if (!(gain > bestGain)) return false;
    bestGain = gain;
    best.d = xq / var;
    best.m = mean - best.d * q1 / weight;
    return true;
  };
  for (const float span : spans) {
    const float inverse = span * perUnit;
    attempt(inverse, 0.5f * top - middle * inverse);
  }
  for (int round = 0; round < rounds; ++round) {
    const float inv = inverse(best.d);
    if (!attempt(inv, (mean - best.m) * inv)) break;
  }
  return best;
}

// Squared error of x ~ d * q + m, q nearest in [0, top].
template <int N>
float lineError(const float* x, const float* w, float d, float m, float top) {
  const float inv = inverse(d);
  Lanes error;
  for (int i = 0; i < N; i += kLanes)
    for (int l = 0; l < kLanes; ++l) {
      const float t = x[i + l] - m;
      const float e = d * nearestCode(t * inv, 0.0f, top) - t;
      error.v[l] += w[i + l] * e * e;
    }
  return error.sum();
}

}  // namespace pg
