#pragma once
// Eight floats, with the vector instructions that every machine of a platform has (SSE2, NEON). Without them compilers
// leave the quantizers' loops scalar, because they may not turn `a < b ? a : b` on floats into vector code; with them
// they are three to six times faster. Results are the same on all: each lane is IEEE arithmetic, sums have one order.
#include <cstdint>

#if defined(__SSE2__) || defined(_M_X64)
#define PG_LANES_SSE2 1
#include <emmintrin.h>
#elif defined(__aarch64__) || defined(_M_ARM64)
#define PG_LANES_NEON 1
#include <arm_neon.h>
#endif

namespace pg {

constexpr int kLanes = 8;

struct Lanes {
#if defined(PG_LANES_SSE2)
  using Half = __m128;
  static Half splat(float x) { return _mm_set1_ps(x); }
  static Half read(const float* p) { return _mm_loadu_ps(p); }
  static void write(float* p, Half a) { _mm_storeu_ps(p, a); }
  static Half add(Half a, Half b) { return _mm_add_ps(a, b); }
  static Half sub(Half a, Half b) { return _mm_sub_ps(a, b); }
  static Half mul(Half a, Half b) { return _mm_mul_ps(a, b); }
  static Half smaller(Half a, Half b) { return _mm_min_ps(a, b); }
  static Half larger(Half a, Half b) { return _mm_max_ps(a, b); }
  static Half ifGreater(Half a, Half b, Half then) { return _mm_and_ps(_mm_cmpgt_ps(a, b), then); }
#elif defined(PG_LANES_NEON)
  using Half = float32x4_t;
  static Half splat(float x) { return vdupq_n_f32(x); }
  static Half read(const float* p) { return vld1q_f32(p); }
  static void write(float* p, Half a) { vst1q_f32(p, a); }
  static Half add(Half a, Half b) { return vaddq_f32(a, b); }
  static Half sub(Half a, Half b) { return vsubq_f32(a, b); }
  static Half mul(Half a, Half b) { return vmulq_f32(a, b); }
  static Half smaller(Half a, Half b) { return vminq_f32(a, b); }
  static Half larger(Half a, Half b) { return vmaxq_f32(a, b); }
  static Half ifGreater(Half a, Half b, Half then) {
    return vreinterpretq_f32_u32(vandq_u32(vcgtq_f32(a, b), vreinterpretq_u32_f32(then)));
  }
#else
  struct Half {
    float v[4];
  };
  template <class F>
  static Half each(Half a, Half b, F f) {
    return {{f(a.v[0], b.v[0]), f(a.v[1], b.v[1]), f(a.v[2], b.v[2]), f(a.v[3], b.v[3])}};
  }
  static Half splat(float x) { return {{x, x, x, x}}; }
  static Half read(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
  static void write(float* p, Half a) {
    for (int i = 0; i < 4; ++i) p[i] = a.v[i];
  }
  static Half add(Half a, Half b) {
    return each(a, b, [](float x, float y) { return x + y; });
  }
  static Half sub(Half a, Half b) {
    return each(a, b, [](float x, float y) { return x - y; });
  }
  static Half mul(Half a, Half b) {
    return each(a, b, [](float x, float y) { return x * y; });
  }
  static Half smaller(Half a, Half b) {
    return each(a, b, [](float x, float y) { return x < y ? x : y; });
  }
  static Half larger(Half a, Half b) {
    return each(a, b, [](float x, float y) { return x > y ? x : y; });
  }
  static Half ifGreater(Half a, Half b, Half then) {
    for (int i = 0; i < 4; ++i) then.v[i] = a.v[i] > b.v[i] ? then.v[i] : 0.0f;
    return then;
  }
#endif

  Half a, b;  // lanes 0-3, 4-7

  Lanes() : a(splat(0)), b(splat(0)) {}
  Lanes(float x) : a(splat(x)), b(splat(x)) {}
  Lanes(Half first, Half second) : a(first), b(second) {}
  static Lanes load(const float* p) { return {read(p), read(p + 4)}; }
  void store(float* p) const {
    write(p, a);
    write(p + 4, b);
  }

  friend Lanes operator+(Lanes x, Lanes y) { return {add(x.a, y.a), add(x.b, y.b)}; }
  friend Lanes operator-(Lanes x, Lanes y) { return {sub(x.a, y.a), sub(x.b, y.b)}; }
  friend Lanes operator*(Lanes x, Lanes y) { return {mul(x.a, y.a), mul(x.b, y.b)}; }
  Lanes& operator+=(Lanes y) { return *this = *this + y; }
  friend Lanes min(Lanes x, Lanes y) { return {smaller(x.a, y.a), smaller(x.b, y.b)}; }
  friend Lanes max(Lanes x, Lanes y) { return {larger(x.a, y.a), larger(x.b, y.b)}; }
  // then where x > y, else 0
  friend Lanes whereGreater(Lanes x, Lanes y, Lanes then) {
    return {ifGreater(x.a, y.a, then.a), ifGreater(x.b, y.b, then.b)};
  }

  float sum() const {
    float v[4];
    write(v, add(a, b));
    return (v[0] + v[2]) + (v[1] + v[3]);
  }
  float smallest() const {
    float v[4];
    write(v, smaller(a, b));
    for (int i = 1; i < 4; ++i) v[0] = v[i] < v[0] ? v[i] : v[0];
    return v[0];
  }
  float largest() const {
    float v[4];
    write(v, larger(a, b));
    for (int i = 1; i < 4; ++i) v[0] = v[i] > v[0] ? v[i] : v[0];
    return v[0];
  }
};

}  // namespace pg
