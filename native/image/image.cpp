#include "image/image.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/error.h"

#if defined(__SSE2__) || defined(_M_X64)
#define PG_IMAGE_SSE2 1
#include <emmintrin.h>
#elif defined(__aarch64__) || defined(_M_ARM64)
#define PG_IMAGE_NEON 1
#include <arm_neon.h>
#endif

namespace pg {
namespace {

// Pillow's resampling (checked bit for bit against it): separable, horizontal pass first, results of each pass rounded
// to 8 bits, a pass that changes nothing is left out.
constexpr int kFractionBits = 22;              // of a fixed-point weight
constexpr int kLowBits = 15;                   // a weight is high * 2^15 + low: both fit 16-bit multipliers
constexpr int32_t kHalf = 1 << (kFractionBits - 1);
constexpr uint8_t kPadColor = 127;             // -0.004 after normalisation to -1..1, the nearest to "nothing"
constexpr int32_t kMaxSide = 1 << 20;

double filterValue(ResizeFilter filter, double x) {
  x = std::fabs(x);
  if (filter == ResizeFilter::bilinear) return x < 1 ? 1 - x : 0;
  constexpr double a = -0.5;  // Keys cubic
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

// Which inputs an output is made of, for one direction.
struct Taps {
  int32_t most = 0;                 // longest run
  std::vector<int32_t> first;       // [out] first input
  std::vector<int32_t> count;       // [out]
  std::vector<double> weight;       // [out, most], sum 1
};

Taps makeTaps(int32_t in, int32_t out, ResizeFilter filter) {
  const double scale = double(in) / out;
  const double filterScale = std::max(scale, 1.0);  // antialias: the kernel grows with the reduction
  const double support = (filter == ResizeFilter::bilinear ? 1 : 2) * filterScale;
  const double inverse = 1 / filterScale;
  Taps taps;
  taps.most = int32_t(std::min<double>(std::ceil(support) * 2 + 1, in));
  taps.first.resize(size_t(out));
  taps.count.resize(size_t(out));
  taps.weight.assign(size_t(out) * size_t(taps.most), 0);
  for (int32_t i = 0; i < out; ++i) {
    const double center = (i + 0.5) * scale;
    // NOLINTBEGIN(bugprone-incorrect-roundings): as Pillow rounds
    const int32_t begin = std::max(int32_t(center - support + 0.5), 0);
    const int32_t end = std::min(int32_t(center + support + 0.5), in);
    // NOLINTEND(bugprone-incorrect-roundings)
    double* weight = &taps.weight[size_t(i) * size_t(taps.most)];
    double sum = 0;
    for (int32_t x = begin; x < end; ++x) {
      weight[x - begin] = filterValue(filter, (x - center + 0.5) * inverse);
      sum += weight[x - begin];
    }
    if (sum != 0)
      for (int32_t k = 0; k < end - begin; ++k) weight[k] /= sum;
    taps.first[size_t(i)] = begin;
    taps.count[size_t(i)] = end - begin;
  }
  return taps;
}

// Fixed-point weights in pairs of neighbouring taps, split in halves: sum = (Σ high * v << 15) + Σ low * v, modulo
// 2^32, which is exact because the true sum fits 31 bits.
struct FixedTaps {
  int32_t pairs = 0;                // of the longest run
  std::vector<int32_t> first, count;  // [out]
  std::vector<int16_t> high, low;   // [out, pairs, 2]
};

FixedTaps makeFixedTaps(int32_t in, int32_t out, ResizeFilter filter) {
  const Taps taps = makeTaps(in, out, filter);
  FixedTaps fixed;
  fixed.pairs = (taps.most + 1) / 2;
  fixed.first = taps.first;
  fixed.count = taps.count;
  fixed.high.assign(size_t(out) * size_t(fixed.pairs) * 2, 0);
  fixed.low.assign(fixed.high.size(), 0);
  for (size_t i = 0; i < size_t(out); ++i) {
    for (int32_t k = 0; k < taps.count[i]; ++k) {
      const double scaled = taps.weight[i * size_t(taps.most) + size_t(k)] * (1 << kFractionBits);
      const int32_t weight = int32_t(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
      const size_t at = i * size_t(fixed.pairs) * 2 + size_t(k);
      fixed.high[at] = int16_t(weight >> kLowBits);
      fixed.low[at] = int16_t(weight & ((1 << kLowBits) - 1));
    }
  }
  return fixed;
}

uint8_t clip8(uint32_t sum) {
  const int32_t value = int32_t(sum) >> kFractionBits;
  return uint8_t(std::clamp(value, 0, 255));
}

#if PG_IMAGE_NEON
int16x4_t twoWeights(const int16_t* pair) {
  int32_t both;
  memcpy(&both, pair, 4);
  return vreinterpret_s16_s32(vdup_n_s32(both));
}

// The samples of four sums, negative ones 0; above 255 they are left for the last narrowing.
uint16x4_t clipped16(int32x4_t sumHigh, int32x4_t sumLow) {
  const int32x4_t sum = vaddq_s32(vaddq_s32(vshlq_n_s32(sumHigh, kLowBits), sumLow), vdupq_n_s32(kHalf));
  return vqmovun_s32(vshrq_n_s32(sum, kFractionBits));
}
#endif

// Rows that may be read this far behind their last pixel; the horizontal pass loads whole vectors.
constexpr size_t kOverread = 16;

// One output pixel of `Rows` rows: channels interleaved. src: first tap in the first row.
#if PG_IMAGE_SSE2
template <int Channels, int Rows>
void filterAcross(const uint8_t* src, size_t stride, const int16_t* high, const int16_t* low, int32_t pairs,
                  uint8_t* dst, size_t dstStride) {
  // Lanes are channels: bytes v[0..] and v[Channels..] interleaved give (tap, next tap) pairs for multiply-add.
  const __m128i zero = _mm_setzero_si128();
  __m128i sumHigh[Rows], sumLow[Rows];
  for (int r = 0; r < Rows; ++r) sumHigh[r] = sumLow[r] = zero;
  for (int32_t k = 0; k < pairs; ++k) {
    int32_t pairHigh, pairLow;
    memcpy(&pairHigh, high + 2 * k, 4);
    memcpy(&pairLow, low + 2 * k, 4);
    const __m128i weightHigh = _mm_set1_epi32(pairHigh), weightLow = _mm_set1_epi32(pairLow);
    for (int r = 0; r < Rows; ++r) {
      const uint8_t* v = src + size_t(r) * stride + size_t(k) * 2 * Channels;
      int32_t now, next;
      memcpy(&now, v, 4);
      memcpy(&next, v + Channels, 4);
      const __m128i both = _mm_unpacklo_epi8(_mm_cvtsi32_si128(now), _mm_cvtsi32_si128(next));
      const __m128i wide = _mm_unpacklo_epi8(both, zero);
      sumHigh[r] = _mm_add_epi32(sumHigh[r], _mm_madd_epi16(wide, weightHigh));
      sumLow[r] = _mm_add_epi32(sumLow[r], _mm_madd_epi16(wide, weightLow));
    }
  }
  for (int r = 0; r < Rows; ++r) {
    __m128i sum = _mm_add_epi32(_mm_add_epi32(_mm_slli_epi32(sumHigh[r], kLowBits), sumLow[r]), _mm_set1_epi32(kHalf));
    sum = _mm_srai_epi32(sum, kFractionBits);
    const int32_t packed = _mm_cvtsi128_si32(_mm_packus_epi16(_mm_packs_epi32(sum, sum), zero));
    memcpy(dst + size_t(r) * dstStride, &packed, Channels);
  }
}
#elif PG_IMAGE_NEON
template <int Channels, int Rows>
void filterAcross(const uint8_t* src, size_t stride, const int16_t* high, const int16_t* low, int32_t pairs,
                  uint8_t* dst, size_t dstStride) {
  // Lanes are channels: a tap in the low half of a register, the next in the high half.
  const uint8_t places[8] = {0, 1, 2, 3, Channels, Channels + 1, Channels + 2, Channels + 3};
  const uint8x8_t place = vld1_u8(places);
  int32x4_t sumHigh[Rows], sumLow[Rows];
  for (int r = 0; r < Rows; ++r) sumHigh[r] = sumLow[r] = vdupq_n_s32(0);
  for (int32_t k = 0; k < pairs; ++k) {
    const int16x4_t weightHigh = twoWeights(high + 2 * k), weightLow = twoWeights(low + 2 * k);
    for (int r = 0; r < Rows; ++r) {
      const uint8x8_t bytes = vld1_u8(src + size_t(r) * stride + size_t(k) * 2 * Channels);
      const int16x8_t wide = vreinterpretq_s16_u16(vmovl_u8(vtbl1_u8(bytes, place)));
      sumHigh[r] =
          vmlal_high_lane_s16(vmlal_lane_s16(sumHigh[r], vget_low_s16(wide), weightHigh, 0), wide, weightHigh, 1);
      sumLow[r] = vmlal_high_lane_s16(vmlal_lane_s16(sumLow[r], vget_low_s16(wide), weightLow, 0), wide, weightLow, 1);
    }
  }
  for (int r = 0; r < Rows; ++r) {
    const uint16x4_t clipped = clipped16(sumHigh[r], sumLow[r]);
    uint8_t bytes[8];
    vst1_u8(bytes, vqmovn_u16(vcombine_u16(clipped, clipped)));
    memcpy(dst + size_t(r) * dstStride, bytes, Channels);
  }
}
#else
template <int Channels, int Rows>
void filterAcross(const uint8_t* src, size_t stride, const int16_t* high, const int16_t* low, int32_t pairs,
                  uint8_t* dst, size_t dstStride) {
  for (int r = 0; r < Rows; ++r) {
    uint32_t sumHigh[Channels] = {}, sumLow[Channels] = {};
    const uint8_t* v = src + size_t(r) * stride;
    for (int32_t k = 0; k < 2 * pairs; ++k)
      for (int c = 0; c < Channels; ++c) {
        sumHigh[c] += uint32_t(int32_t(high[k]) * v[k * Channels + c]);
        sumLow[c] += uint32_t(int32_t(low[k]) * v[k * Channels + c]);
      }
    for (int c = 0; c < Channels; ++c)
      dst[size_t(r) * dstStride + size_t(c)] = clip8((sumHigh[c] << kLowBits) + sumLow[c] + uint32_t(kHalf));
  }
}
#endif

// rows x [width, Channels] -> rows x [taps, Channels]. `src` must allow kOverread bytes behind its last row.
template <int Channels>
void horizontalPass(const uint8_t* src, size_t stride, int32_t rows, const FixedTaps& taps, uint8_t* dst) {
  const int32_t out = int32_t(taps.first.size());
  const size_t dstStride = size_t(out) * Channels, weights = size_t(taps.pairs) * 2;
  const auto across = [&]<int Rows>(int32_t y) {
    for (size_t i = 0; i < size_t(out); ++i)
      filterAcross<Channels, Rows>(src + size_t(y) * stride + size_t(taps.first[i]) * Channels, stride,
                                   &taps.high[i * weights], &taps.low[i * weights], (taps.count[i] + 1) / 2,
                                   dst + size_t(y) * dstStride + i * Channels, dstStride);
  };
  int32_t y = 0;
  for (; y + 4 <= rows; y += 4) across.template operator()<4>(y);
  for (; y < rows; ++y) across.template operator()<1>(y);
}

// One output row of `bytes` samples from rows of the same width; the inner loops vectorize over the row.
void filterDown(const uint8_t* src, size_t bytes, int32_t rows, const int16_t* high, const int16_t* low, uint32_t* sums,
                uint8_t* dst) {
  size_t first = 0;
#if PG_IMAGE_NEON
  // 16 samples at a time, whose sums stay in registers
  for (; first + 16 <= bytes; first += 16) {
    int32x4_t sumHigh[4], sumLow[4];
    for (int i = 0; i < 4; ++i) sumHigh[i] = sumLow[i] = vdupq_n_s32(0);
    for (int32_t k = 0; k < rows; ++k) {
      const uint8x16_t row = vld1q_u8(src + size_t(k) * bytes + first);
      const int16x8_t wide[2] = {vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(row))),
                                 vreinterpretq_s16_u16(vmovl_high_u8(row))};
      for (int i = 0; i < 2; ++i) {
        sumHigh[2 * i] = vmlal_n_s16(sumHigh[2 * i], vget_low_s16(wide[i]), high[k]);
        sumHigh[2 * i + 1] = vmlal_high_n_s16(sumHigh[2 * i + 1], wide[i], high[k]);
        sumLow[2 * i] = vmlal_n_s16(sumLow[2 * i], vget_low_s16(wide[i]), low[k]);
        sumLow[2 * i + 1] = vmlal_high_n_s16(sumLow[2 * i + 1], wide[i], low[k]);
      }
    }
    uint16x8_t clipped[2];
    for (int i = 0; i < 2; ++i)
      clipped[i] =
          vcombine_u16(clipped16(sumHigh[2 * i], sumLow[2 * i]), clipped16(sumHigh[2 * i + 1], sumLow[2 * i + 1]));
    vst1q_u8(dst + first, vcombine_u8(vqmovn_u16(clipped[0]), vqmovn_u16(clipped[1])));
  }
#endif
  std::fill(sums + first, sums + bytes, uint32_t(kHalf));
  for (int32_t k = 0; k < rows; ++k) {
    const uint8_t* row = src + size_t(k) * bytes;
    const int32_t weight = int32_t(high[k]) * (1 << kLowBits) + low[k];
    for (size_t x = first; x < bytes; ++x) sums[x] += uint32_t(weight * row[x]);
  }
  for (size_t x = first; x < bytes; ++x) dst[x] = clip8(sums[x]);
}

template <class Body>
void overRows(ThreadPool* pool, int32_t rows, int32_t grain, const Body& body) {
  if (pool) pool->forRange(rows, grain, [&](int64_t begin, int64_t end, int) { body(int32_t(begin), int32_t(end)); });
  else body(0, rows);
}

void checkSides(int32_t width, int32_t height, int32_t newWidth, int32_t newHeight) {
  for (int32_t side : {width, height, newWidth, newHeight})
    if (side < 1 || side > kMaxSide)
      fail(Code::imageInvalid, "Cannot resize a picture of ", width, " x ", height, " to ", newWidth, " x ", newHeight,
           ": sides must be 1..", kMaxSide);
}

template <int Channels>
std::vector<uint8_t> resize8(const uint8_t* src, int32_t width, int32_t height, int32_t newWidth, int32_t newHeight,
                             ResizeFilter filter, ThreadPool* pool) {
  checkSides(width, height, newWidth, newHeight);
  const size_t stride = size_t(width) * Channels, newStride = size_t(newWidth) * Channels;
  std::vector<uint8_t> across;
  const uint8_t* rows = src;  // [height, newWidth]
  if (newWidth != width) {
    const FixedTaps taps = makeFixedTaps(width, newWidth, filter);
    across.resize(newStride * size_t(height));
    // Loads reach behind a row's end, so the last row comes from a longer copy.
    overRows(pool, height - 1, 16, [&](int32_t begin, int32_t end) {
      // a row's overread must stay in the picture: rows shorter than it go through the copy below, too
      for (int32_t y = begin; y < end;) {
        const size_t left = size_t(height - y) * stride;
        const int32_t safe = left > kOverread ? std::min(end - y, int32_t((left - kOverread) / stride)) : 0;
        if (safe > 0) {
          horizontalPass<Channels>(src + size_t(y) * stride, stride, safe, taps, &across[size_t(y) * newStride]);
          y += safe;
        } else {
          std::vector<uint8_t> copy(stride + kOverread);
          memcpy(copy.data(), src + size_t(y) * stride, stride);
          horizontalPass<Channels>(copy.data(), stride, 1, taps, &across[size_t(y) * newStride]);
          ++y;
        }
      }
    });
    std::vector<uint8_t> last(stride + kOverread);
    memcpy(last.data(), src + size_t(height - 1) * stride, stride);
    horizontalPass<Channels>(last.data(), stride, 1, taps, &across[size_t(height - 1) * newStride]);
    rows = across.data();
  }
  if (newHeight == height) {
    if (rows == src) return std::vector<uint8_t>(src, src + stride * size_t(height));
    return across;
  }
  const FixedTaps taps = makeFixedTaps(height, newHeight, filter);
  std::vector<uint8_t> out(newStride * size_t(newHeight));
  overRows(pool, newHeight, 8, [&](int32_t begin, int32_t end) {
    std::vector<uint32_t> sums(newStride);
    for (int32_t y = begin; y < end; ++y) {
      const size_t at = size_t(y) * size_t(taps.pairs) * 2;
      filterDown(rows + size_t(taps.first[size_t(y)]) * newStride, newStride, taps.count[size_t(y)], &taps.high[at],
                 &taps.low[at], sums.data(), &out[size_t(y) * newStride]);
    }
  });
  return out;
}

}  // namespace

Rgb8 resizeRgb(const uint8_t* rgb, int32_t width, int32_t height, int32_t newWidth, int32_t newHeight,
               ResizeFilter filter, ThreadPool* pool) {
  return {newWidth, newHeight, resize8<3>(rgb, width, height, newWidth, newHeight, filter, pool)};
}

Rgb8 resizeToSquare(const uint8_t* rgb, int32_t width, int32_t height, int32_t size, ResizeFilter filter, Fit fit,
                    ResizeTransform* transform, ThreadPool* pool) {
  checkSides(width, height, size, size);
  int32_t newWidth = size, newHeight = size;
  if (fit == Fit::pad) {
    const int64_t longer = std::max(width, height);
    newWidth = int32_t(std::max<int64_t>(1, (int64_t(width) * size * 2 + longer) / (2 * longer)));
    newHeight = int32_t(std::max<int64_t>(1, (int64_t(height) * size * 2 + longer) / (2 * longer)));
  }
  const int32_t left = (size - newWidth) / 2, top = (size - newHeight) / 2;
  if (transform) *transform = {double(newWidth) / width, double(newHeight) / height, double(left), double(top)};
  Rgb8 resized = resizeRgb(rgb, width, height, newWidth, newHeight, filter, pool);
  if (newWidth == size && newHeight == size) return resized;

  Rgb8 square{size, size, std::vector<uint8_t>(size_t(size) * size_t(size) * 3, kPadColor)};
  for (int32_t y = 0; y < newHeight; ++y)
    memcpy(&square.data[(size_t(y + top) * size_t(size) + size_t(left)) * 3],
           &resized.data[size_t(y) * size_t(newWidth) * 3], size_t(newWidth) * 3);
  return square;
}

std::vector<uint8_t> resizeGray8(const uint8_t* src, int32_t width, int32_t height, int32_t newWidth, int32_t newHeight,
                                 ResizeFilter filter) {
  return resize8<1>(src, width, height, newWidth, newHeight, filter, nullptr);
}

std::vector<float> resizeGrayF32(const float* src, int32_t width, int32_t height, int32_t newWidth, int32_t newHeight,
                                 ResizeFilter filter) {
  checkSides(width, height, newWidth, newHeight);
  std::vector<float> across(src, src + size_t(width) * size_t(height));
  if (newWidth != width) {
    const Taps taps = makeTaps(width, newWidth, filter);
    across.resize(size_t(newWidth) * size_t(height));
    for (size_t y = 0; y < size_t(height); ++y)
      for (size_t i = 0; i < size_t(newWidth); ++i) {
        const double* weight = &taps.weight[i * size_t(taps.most)];
        const float* v = src + y * size_t(width) + taps.first[i];
        double sum = 0;
        for (int32_t k = 0; k < taps.count[i]; ++k) sum += v[k] * weight[k];
        across[y * size_t(newWidth) + i] = float(sum);
      }
  }
  if (newHeight == height) return across;
  const Taps taps = makeTaps(height, newHeight, filter);
  std::vector<float> out(size_t(newWidth) * size_t(newHeight));
  std::vector<double> sums(static_cast<size_t>(newWidth));
  for (size_t y = 0; y < size_t(newHeight); ++y) {
    std::fill(sums.begin(), sums.end(), 0.0);
    for (int32_t k = 0; k < taps.count[y]; ++k) {
      const double weight = taps.weight[y * size_t(taps.most) + size_t(k)];
      const float* row = &across[size_t(taps.first[y] + k) * size_t(newWidth)];
      for (size_t x = 0; x < size_t(newWidth); ++x) sums[x] += row[x] * weight;
    }
    for (size_t x = 0; x < size_t(newWidth); ++x) out[y * size_t(newWidth) + x] = float(sums[x]);
  }
  return out;
}

void patchify(const uint8_t* rgb, int32_t size, int32_t patch, const float mean[3], const float std[3], HostView out) {
  if (patch < 1 || size < patch || size % patch)
    fail(Code::modelInvalid, "A picture of ", size, " px cannot be cut into patches of ", patch, " px");
  const int32_t grid = size / patch;
  if (out.type != DType::f32 || out.rows != int64_t(grid) * grid || out.cols != int64_t(3) * patch * patch)
    fail(Code::internal, "patchify: wrong output shape");
  // as the reference: v / 255 in double, rounded to float, then normalised in float
  float value[3][256];
  for (int c = 0; c < 3; ++c)
    for (int v = 0; v < 256; ++v) value[c][v] = (float(v * (1.0 / 255)) - mean[c]) / std[c];
  for (int64_t n = 0; n < out.rows; ++n) {
    float* dst = out.row<float>(n);
    const uint8_t* corner = rgb + (n / grid * patch * size + n % grid * patch) * 3;
    for (int c = 0; c < 3; ++c)
      for (int32_t y = 0; y < patch; ++y)
        for (int32_t x = 0; x < patch; ++x) *dst++ = value[c][corner[(int64_t(y) * size + x) * 3 + c]];
  }
}

}  // namespace pg
