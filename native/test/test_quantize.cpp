// Decoders must reproduce the reference bit for bit; encoders must not have a larger error than it.
#include <algorithm>
#include <limits>

#include "base/half.h"
#include "format/gguf.h"
#include "format/quantize.h"
#include "golden.h"

using namespace pg;
using namespace pg::test;

namespace {

bool sameBits(float a, float b) { return std::isnan(a) ? std::isnan(b) : floatToBits(a) == floatToBits(b); }

}  // namespace

TEST(dequantize_every_type_matches_the_reference_bit_for_bit) {
  const std::string path = golden("gguf/quants.gguf");
  if (path.empty()) return;
  const auto file = GgufFile::open(path);
  const Safetensors expected(golden("gguf/quants.expected.safetensors"));
  CHECK(file->tensors().size() > 80);
  for (const auto& t : file->tensors()) {
    const std::vector<float> want = expected[std::string(t.name)].floats();
    CHECK_EQUAL(int64_t(want.size()), t.elements());
    std::vector<float> got(want.size());
    CHECK(canDequantize(t.type));
    const ConstHostView view = file->view(t);
    for (int64_t r = 0; r < t.rows(); ++r)
      dequantizeRow(t.type, view.row<uint8_t>(r), got.data() + r * t.cols(), t.cols());
    for (size_t i = 0; i < want.size(); ++i)
      if (!sameBits(got[i], want[i]))
        throw Failure{std::string(t.name), "element " + std::to_string(i) + ": " + std::to_string(got[i]) +
                                               " instead of " + std::to_string(want[i])};
  }
}

TEST(f16_and_bf16_conversions_match_the_reference) {
  const std::string path = golden("gguf/quants.expected.safetensors");
  if (path.empty()) return;
  const Safetensors expected(path);
  const std::vector<float> source = expected["edge.source"].floats();
  for (const auto& [type, name] : {std::pair(DType::f16, "edge.F16"), std::pair(DType::bf16, "edge.BF16")}) {
    const std::vector<float> want = expected[name].floats();
    const auto n = int64_t(source.size());
    std::vector<uint16_t> half(source.size());
    std::vector<float> got(source.size());
    quantizeRow(type, source.data(), half.data(), n);
    dequantizeRow(type, half.data(), got.data(), n);
    for (size_t i = 0; i < got.size(); ++i)
      if (!sameBits(got[i], want[i])) throw Failure{name, "element " + std::to_string(i)};
  }
}

namespace {

const DType kBlockTypes[] = {DType::q8_0, DType::q4_0, DType::q4_1, DType::q5_0, DType::q5_1,   DType::q2_k,
                             DType::q3_k, DType::q4_k, DType::q5_k, DType::q6_k, DType::iq4_nl, DType::iq4_xs};

std::vector<float> roundTrip(DType type, const std::vector<float>& x, const float* importance = nullptr) {
  const auto n = int64_t(x.size());
  std::vector<uint8_t> row(bytesFor(type, n));
  std::vector<float> y(x.size());
  quantizeRow(type, x.data(), row.data(), n, importance);
  dequantizeRow(type, row.data(), y.data(), n);
  return y;
}

double squaredError(const std::vector<float>& x, const std::vector<float>& y, const float* weights = nullptr) {
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double e = double(x[i]) - double(y[i]);
    sum += e * e * (weights ? double(weights[i]) : 1);
  }
  return sum;
}

// Bell-shaped numbers of a fixed sequence, about 1 in size.
std::vector<float> sample(size_t n, uint32_t seed = 1) {
  std::vector<float> x(n);
  for (float& v : x) {
    v = 0;
    for (int i = 0; i < 6; ++i) {
      seed = seed * 1664525u + 1013904223u;
      v += float(seed >> 8) / 16777216.0f - 0.5f;
    }
    v *= 1.41f;
  }
  return x;
}

}  // namespace

TEST(quantize_error_is_not_above_the_reference) {
  const std::string path = golden("gguf/quants.info.json");
  if (path.empty()) return;
  const Json info = readJson(path);
  const Safetensors data(golden("gguf/quants.expected.safetensors"));
  int compared = 0;
  for (const DType type : kBlockTypes)
    for (const auto& [name, tensor] : info["types"][dtypeName(type)]["tensors"].fields) {
      const std::string variant = name.substr(name.find('.') + 1);
      if (variant == "random_bits") continue;
      const bool weighted = variant == "2d_imatrix";
      const std::vector<float> source = data[weighted ? "source.2d" : "source." + variant].floats();
      const std::vector<float> importance = weighted ? data["imatrix"].floats() : std::vector<float>();
      const auto n = size_t(tensor["ne"][0].number);
      double error = 0, relative = 0;
      for (size_t r = 0; r < source.size() / n; ++r) {
        const std::vector<float> x(source.begin() + long(r * n), source.begin() + long((r + 1) * n));
        const std::vector<float> y = roundTrip(type, x, weighted ? importance.data() : nullptr);
        bool zeros = true;
        for (size_t i = 0; i < n; ++i) {
          CHECK(std::isfinite(y[i]));
          zeros = zeros && x[i] == 0;
        }
        if (zeros)
          for (const float v : y) CHECK(v == 0);
        error += squaredError(x, y, weighted ? importance.data() : nullptr);
        // rows 0-11 are the natural ones that the reference averages
        if (r < 12) relative += std::sqrt(squaredError(x, y) / squaredError(x, std::vector<float>(n))) / 12;
      }
      const double got = weighted ? error / double(source.size()) : relative;
      const double want = tensor[weighted ? "weighted_mse_total" : "mean_rel_rmse_natural_rows"].number;
      if (!(got <= want * 1.001))
        throw Failure{name, std::to_string(got) + " is above the reference's " + std::to_string(want)};
      ++compared;
    }
  CHECK(compared >= 30);
}

TEST(quantize_gives_finite_values_for_any_input) {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const float specials[] = {0.0f,   -0.0f, 1e-45f, 1e-40f,  1e-8f,    3e-8f, 6e-8f, 1e-5f,
                            6.5e4f, 1e6f,  1e9f,   3.4e38f, -3.4e38f, nan,   inf,   -inf};
  for (const DType type : kBlockTypes) {
    for (const float a : specials)
      for (const float b : specials) {
        std::vector<float> x(256, a);
        for (size_t i = 0; i < x.size(); i += 3) x[i] = b;
        for (const float v : roundTrip(type, x)) CHECK(std::isfinite(v));
      }
    // a NaN and an infinity leave the other blocks alone, and count as 0 and as the largest value of the row
    std::vector<float> x = sample(1024), clean = x;
    x[3] = nan;
    x[700] = -inf;
    clean[3] = 0;
    float largest = 0;
    for (size_t i = 0; i < x.size(); ++i)
      if (i != 700 && i != 3) largest = std::max(largest, std::fabs(x[i]));
    clean[700] = -largest;
    CHECK(roundTrip(type, x) == roundTrip(type, clean));
  }
}

TEST(quantize_keeps_the_sign_and_size_of_tiny_values) {
  for (const DType type : kBlockTypes) {
    std::vector<float> x = sample(256);
    for (float& v : x) v *= 1e-6f;  // scales below the normal range of f16
    CHECK(squaredError(x, roundTrip(type, x)) < 0.3 * squaredError(x, std::vector<float>(256)));
  }
}

TEST(quantize_ignores_importance_that_says_nothing) {
  const std::vector<float> x = sample(512);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const DType type : kBlockTypes) {
    const std::vector<float> plain = roundTrip(type, x);
    for (const float w : {0.0f, nan, -1.0f, std::numeric_limits<float>::infinity()})
      CHECK(roundTrip(type, x, std::vector<float>(512, w).data()) == plain);
    // only the ratio of weights matters
    CHECK(roundTrip(type, x, std::vector<float>(512, 0.25f).data()) == plain);
  }
}

TEST(quantize_importance_moves_the_error_to_unimportant_columns) {
  const std::vector<float> x = sample(4096, 7);
  std::vector<float> importance(x.size(), 0.01f);
  for (size_t i = 0; i < x.size(); i += 4) importance[i] = 1;
  for (const DType type : kBlockTypes) {
    if (type == DType::q8_0) continue;  // one rounding, nothing to choose
    CHECK(squaredError(x, roundTrip(type, x, importance.data()), importance.data()) <
          squaredError(x, roundTrip(type, x), importance.data()));
  }
}

TEST(quantize_treats_blocks_independently) {
  const std::vector<float> x = sample(256 * 9);
  for (const DType type : kBlockTypes) {
    const std::vector<float> whole = roundTrip(type, x);
    for (size_t begin = 0; begin < x.size(); begin += 256) {
      const std::vector<float> part(x.begin() + long(begin), x.begin() + long(begin + 256));
      CHECK(std::equal(part.begin(), part.end(), x.begin() + long(begin)));
      const std::vector<float> alone = roundTrip(type, part);
      CHECK(std::equal(alone.begin(), alone.end(), whole.begin() + long(begin)));
    }
  }
}

TEST(quantize_refuses_types_and_widths_that_it_cannot_write) {
  const std::vector<float> x(100);
  std::vector<uint8_t> out(1000);
  CHECK(!canQuantize(DType::iq2_xxs) && !canQuantize(DType::i32) && !canQuantize(DType(4)));
  CHECK(canQuantize(DType::q4_k) && canQuantize(DType::f16));
  CHECK(!canDequantize(DType::i8) && canDequantize(DType::nvfp4) && canDequantize(DType::f64));
  CHECK_FAILS(quantizeRow(DType::iq2_xxs, x.data(), out.data(), 0), Code::modelUnsupported, "IQ2_XXS");
  CHECK_FAILS(quantizeRow(DType::q8_0, x.data(), out.data(), 33), Code::internal, "row of 33 values cannot be Q8_0");
}
