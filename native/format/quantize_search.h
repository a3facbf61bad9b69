#pragma once
// Search for block scales: weighted least squares over a few roundings of a block.
//
// Inputs are finite, |x| <= kLargest, weights > 0.
#include <cmath>
#include <cstdint>

#include "base/half.h"
#include "format/lanes.h"

namespace pg {

constexpr float kLargest = 1e9f;              // more than any type can represent; squares stay far from overflow
constexpr float kSmallest = 2.98023224e-8f;   // 2^-25: below it, every type with an f16 scale gives 0

inline float clampTo(float x, float lo, float hi) {
  x = x < lo ? lo : x;
  return x > hi ? hi : x;
}

// The nearest whole number in [lo, hi], ties to even; |lo|, |hi| < 2^22, so that the sum has no fraction bits left.
template <class T>
T roundToInt(T x) {
  return (x + T(12582912.0f)) - T(12582912.0f);
}
inline Lanes nearestCode(Lanes x, float lo, float hi) { return roundToInt(min(max(x, Lanes(lo)), Lanes(hi))); }
inline float nearestCode(float x, float lo, float hi) { return roundToInt(clampTo(x, lo, hi)); }

inline uint16_t minimumToHalf(float m) { return f32ToF16(clampTo(m, -kLargestHalf, kLargestHalf)); }

// Not infinite, and not 0 where the smallest f16 still represents something.
inline uint16_t scaleToHalf(float d) {
  const uint16_t h = f32ToF16(clampTo(d, -kLargestHalf, kLargestHalf));
  return d != 0 && (h & 0x7fff) == 0 ? uint16_t(h | 1) : h;
}

// 1 / d, or 0 for a scale so small that no code can help.
inline float inverse(float d) { return std::fabs(d) > 1e-30f ? 1.0f / d : 0.0f; }

template <int N>
void range(const float* x, float& least, float& most) {
  Lanes low = Lanes::load(x), high = low;
  for (int i = kLanes; i < N; i += kLanes) {
    low = min(low, Lanes::load(x + i));
    high = max(high, Lanes::load(x + i));
  }
  least = low.smallest();
  most = high.largest();
}

// The value with the largest magnitude, with its sign.
template <int N>
float extreme(const float* x) {
  float least, most;
  range<N>(x, least, most);
  return -least > most ? least : most;
}

// Sum of w, and of w * x.
template <int N>
void weightedSums(const float* x, const float* w, float& sumW, float& sumWx) {
  Lanes sw, swx;
  for (int i = 0; i < N; i += kLanes) {
    sw += Lanes::load(w + i);
    swx += Lanes::load(w + i) * Lanes::load(x + i);
  }
  sumW = sw.sum();
  sumWx = swx.sum();
}

// x ~ d * q with whole q in [lo, hi].
struct WholeCodes {
  float lo, hi;
  Lanes operator()(Lanes t) const { return nearestCode(t, lo, hi); }
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
  for (int i = 0; i < N; i += kLanes) {
    const Lanes v = Lanes::load(x + i), q = codes(v * Lanes(inverse)), wq = Lanes::load(w + i) * q;
    xq += wq * v;
    qq += wq * q;
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
  for (int i = 0; i < N; i += kLanes) {
    const Lanes v = Lanes::load(x + i), e = Lanes(d) * codes(v * Lanes(inv)) - v;
    error += Lanes::load(w + i) * e * e;
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
  for (int i = 0; i < N; i += kLanes) {
    const Lanes v = Lanes::load(x + i), q = nearestCode(v * Lanes(inverse) + Lanes(shift), 0, top);
    const Lanes wq = Lanes::load(w + i) * q;
    s1 += wq;
    s2 += wq * q;
    sx += wq * v;
  }
  q1 = s1.sum();
  q2 = s2.sum();
  xq = sx.sum();
}

// Steps of 4 and of 5 bits for searchLine().
inline constexpr float kSpans4[] = {15.0f, 12.6f, 13.4f, 14.0f, 14.6f, 15.5f, 16.2f, 17.2f, 18.6f, 21.0f};
inline constexpr float kSpans5[] = {31.0f, 28.0f, 29.4f, 30.0f, 30.5f, 31.8f, 33.0f, 35.0f, 38.0f, 43.0f};

// Free offset. `spans` are the numbers of steps that the range of x is stretched over; for each, the lowest value, the
// highest, or the middle of the range stays where it was: what lies outside the codes is cut off on either side. The
// first is the plain one, `top`.
template <int N, int Count>
LineFit searchLine(const float* x, const float* w, float top, const float (&spans)[Count], int rounds) {
  float least, most;
  range<N>(x, least, most);
  float weight, total;
  weightedSums<N>(x, w, weight, total);
  const float mean = total / weight;
  if (most - least < kSmallest) return {0, mean};
  float centred[N];
  for (int i = 0; i < N; ++i) centred[i] = x[i] - mean;

  const float perUnit = 1.0f / (most - least), middle = 0.5f * (least + most) - mean;
  LineFit best{0, mean};
  float bestGain = 0;
  const auto attempt = [&](float inverse, float shift) {
    float q1, q2, xq;
    lineSums<N>(centred, w, inverse, shift, top, q1, q2, xq);
    const float var = q2 - q1 * q1 / weight;
    if (!(var > 0)) return false;
    const float gain = xq * xq / var;
    // Several codes can be equally good; the first one stays, so that groups of a block agree about their minimum.
    if (!(gain > bestGain * 1.00001f)) return false;
    bestGain = gain;
    best.d = xq / var;
    best.m = mean - best.d * q1 / weight;
    return true;
  };
  for (const float span : spans) {
    const float inverse = span * perUnit;
    attempt(inverse, 0.5f * top - middle * inverse);
    attempt(inverse, (mean - least) * inverse);
    attempt(inverse, top - (most - mean) * inverse);
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
  for (int i = 0; i < N; i += kLanes) {
    const Lanes t = Lanes::load(x + i) - Lanes(m), e = Lanes(d) * nearestCode(t * Lanes(inv), 0, top) - t;
    error += Lanes::load(w + i) * e * e;
  }
  return error.sum();
}

}  // namespace pg
