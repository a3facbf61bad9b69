#include "kernels_fixture.h"

namespace pg {

// Attention's 16-bit kernels against plain loops over the same integers.
namespace {

// A row as integers of at most `level`: round(x * level / max|x|)
std::vector<int> levelsOf(const float* x, int64_t n, int level, double* scale) {
  float top = 0;
  for (int64_t i = 0; i < n; ++i) top = std::max(top, std::fabs(x[i]));
  std::vector<int> q;
  for (int64_t i = 0; i < n; ++i) q.push_back(int(std::nearbyint(x[i] * (top > 0 ? float(level) / top : 0))));
  *scale = double(top) / level;
  return q;
}

}  // namespace

TEST(kernels_attention_scores_are_exact_for_their_integers) {
  for (const Kernels* k : everyTable()) {
    if (!k->scores16) continue;
    const int64_t width = k->tileTokens;
    for (DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0})
      for (int64_t n : type == DType::q8_0 ? std::vector<int64_t>{32, 96, 256}
                                           : std::vector<int64_t>{1, 7, 8, 20, 33, 72, 250, 256})
        for (int64_t count : {1, 31, 64}) {
          const int level = std::min(32767, int(std::sqrt(2147483647.0 / double(n))));
          const Rows keys(type, count, n, 30);
          std::vector<float> x = randoms(size_t(width * n), 31), queryScales(static_cast<size_t>(width)),
                             keyScales(kTileGroup), out(size_t(width * kTileGroup), 7);
          std::fill_n(x.begin(), n, 0.5f);  // the largest sums that can be:
          for (int64_t i = 0; i < n; ++i) x[size_t(i)] *= keys.values[size_t(i)] < 0 ? -1.0f : 1.0f;
          std::vector<int16_t> queries(size_t(width * kRow16)), panels(size_t(kTileGroup * (n + 7)));
          for (int64_t t = 0; t < width; ++t)
            k->packQueries16(x.data() + t * n, n, level, queries.data() + t * kRow16, &queryScales[size_t(t)]);
          k->packKeys16(type, keys.data(), keys.stride, count, n, level, panels.data(), keyScales.data());
          k->scores16(out.data(), queries.data(), queryScales.data(), panels.data(), keyScales.data(), n);
          for (int64_t t = 0; t < width; ++t)
            for (int64_t key = 0; key < kTileGroup; ++key) {
              double want = 0;
              if (key < count) {
                double a, b;
                const std::vector<int> q = levelsOf(x.data() + t * n, n, level, &a),
                                       w = levelsOf(keys.values.data() + key * n, n, level, &b);
                for (int64_t i = 0; i < n; ++i) want += double(q[size_t(i)]) * w[size_t(i)];
                want *= a * b;
              }
              CHECK_CLOSE(out[size_t(t * kTileGroup + key)], want, 1e-6 * std::fabs(want) + 1e-30);
            }
        }
  }
}

TEST(kernels_attention_mix_is_exact_for_its_integers) {
  for (const Kernels* k : everyTable()) {
    if (!k->mix16) continue;
    const int64_t width = k->tileTokens;
    for (DType type : {DType::f32, DType::f16, DType::q8_0})
      for (int64_t n : type == DType::q8_0 ? std::vector<int64_t>{32, 96} : std::vector<int64_t>{8, 20, 48, 72, 256})
        for (int64_t count : {1, 5, 64}) {
          const int64_t cols = (n + 15) / 16 * 16, stride = cols + 3;
          const Rows values(type, count, n, 32);
          std::vector<int16_t> panels(size_t(kTileGroup * cols)), p(size_t(width * kTileGroup));
          std::vector<float> scales(kTileGroup);
          k->packValues16(type, values.data(), values.stride, count, n, panels.data(), scales.data());
          std::mt19937 generator(33);
          for (size_t i = 0; i < p.size(); ++i)
            p[i] = int16_t(i < size_t(kTileGroup) ? kProbabilityLevel : generator() % (kProbabilityLevel + 1));
          const std::vector<float> start = randoms(size_t(width * stride), 34), keep = randoms(size_t(width), 35),
                                   weights = randoms(size_t(width), 36, 1e-4f);
          std::vector<float> out = start;
          k->mix16(out.data(), stride, keep.data(), weights.data(), p.data(), panels.data(), cols);
          std::vector<std::vector<int>> rows;
          for (int64_t key = 0; key < count; ++key) {
            double scale;
            rows.push_back(levelsOf(values.values.data() + key * n, n, kValueLevel, &scale));
            CHECK_CLOSE(scales[size_t(key)], scale, 1e-6 * scale);
          }
          for (int64_t t = 0; t < width; ++t)
            for (int64_t c = 0; c < stride; ++c) {
              const double before = start[size_t(t * stride + c)];
              if (c >= cols) {
                CHECK_EQUAL(out[size_t(t * stride + c)], float(before));
                continue;
              }
              double sum = 0;
              for (int64_t key = 0; key < count && c < n; ++key)
                sum += double(p[size_t(t * kTileGroup + key)]) * rows[size_t(key)][size_t(c)];
              const double want = before * keep[size_t(t)] + weights[size_t(t)] * sum;
              CHECK_CLOSE(out[size_t(t * stride + c)], want,
                          1e-6 * (std::fabs(before * keep[size_t(t)]) + std::fabs(weights[size_t(t)] * sum)) + 1e-30);
            }
        }
  }
}

TEST(kernels_attention_softmax_steps_make_one_softmax) {
  struct Step {
    int64_t from, to;
  };
  const Step steps[] = {{0, 64}, {3, 64}, {0, 17}, {62, 63}};
  for (const Kernels* k : everyTable()) {
    if (!k->softmax16) continue;
    for (float cap : {0.0f, 3.0f}) {
      const std::vector<float> scores = randoms(4 * kTileGroup, 37, 4);  // exponents of 2
      std::vector<float> scales = randoms(4 * kTileGroup, 38);
      for (float& s : scales) s = std::fabs(s);
      const auto capped = [&](size_t i) {
        return cap > 0 ? cap * std::tanh(double(scores[i]) / kLog2E / cap) : double(scores[i]) / kLog2E;
      };
      double top = -INFINITY, sum = 0;
      const auto forSeen = [&](const auto& body) {
        for (int64_t s = 0; s < 4; ++s)
          for (int64_t i = steps[s].from; i < steps[s].to; ++i) body(size_t(s * kTileGroup + i));
      };
      forSeen([&](size_t i) { top = std::max(top, capped(i)); });
      forSeen([&](size_t i) { sum += std::exp(capped(i) - top); });
      float runningTop = -INFINITY, runningSum = 0;
      std::vector<int16_t> p(4 * kTileGroup);
      std::vector<double> weights;
      for (size_t s = 0; s < 4; ++s) {
        float weight;
        const float keep =
            k->softmax16(scores.data() + s * kTileGroup, steps[s].from, steps[s].to, cap,
                         scales.data() + s * kTileGroup, &runningTop, &runningSum, p.data() + s * kTileGroup, &weight);
        if (s == 0) CHECK_EQUAL(keep, 0.0f);
        for (double& w : weights) w *= keep;
        weights.push_back(weight);
      }
      CHECK_CLOSE(runningTop, top * kLog2E, 1e-5);
      CHECK_CLOSE(runningSum, sum, 2e-5 * sum);
      for (size_t i = 0; i < p.size(); ++i) {
        const size_t s = i / kTileGroup;
        const bool seen = int64_t(i % kTileGroup) >= steps[s].from && int64_t(i % kTileGroup) < steps[s].to;
        const double want = seen ? std::exp(capped(i) - top) * scales[i] : 0;
        CHECK(p[i] >= 0 && p[i] <= kProbabilityLevel);
        if (!seen) CHECK_EQUAL(int(p[i]), 0);
        CHECK_CLOSE(p[i] * weights[s], want, 0.51 * weights[s] + 2e-5 * want);  // rounded to a level of its tile
      }
    }
  }
}

}  // namespace pg
