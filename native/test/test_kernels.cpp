// Every kernel of every instruction set that runs here against plain arithmetic: all short lengths, misaligned starts.
#include "kernels_fixture.h"

namespace pg {

TEST(kernels_sums_and_elementwise_rows_match_plain_loops) {
  forLengths([](const Kernels& k, int64_t n, int64_t offset) {
    const std::vector<float> a = randoms(size_t(n + offset), 1), b = randoms(size_t(n + offset), 2);
    const float *x = a.data() + offset, *y = b.data() + offset;
    double dot = 0, size = 0, max = -INFINITY;
    std::vector<double> scaled, sums;
    for (int64_t i = 0; i < n; ++i) {
      dot += double(x[i]) * y[i];
      size += std::fabs(double(x[i]) * y[i]);
      max = std::max(max, double(x[i]));
      scaled.push_back(double(x[i]) * 1.7f);
      sums.push_back(double(x[i]) + y[i]);
    }
    CHECK_CLOSE(k.dot(x, y, n), dot, 3e-7 * size + 1e-30);
    CHECK_EQUAL(double(k.max(x, n)), max);
    std::vector<float> out = a;
    out.push_back(123);   // nothing is written behind the end
    k.scale(out.data() + offset, 1.7f, n);
    checkRow(k, out.data() + offset, scaled, 1e-7);
    std::copy(a.begin(), a.end(), out.begin());
    k.add(out.data() + offset, y, n);
    checkRow(k, out.data() + offset, sums, 1e-7);
    CHECK_EQUAL(out.back(), 123.0f);
  });
}

TEST(kernels_exp_tanh_and_gelu_stay_within_their_stated_errors) {
  for (const Kernels* k : everyTable()) {
    std::vector<float> grid;
    for (double x = -110; x <= 88; x += 0.0137) grid.push_back(float(x));
    for (double x = -1; x <= 1; x += 0.00037) grid.push_back(float(x));
    grid.insert(grid.end(), {0.0f, -0.0f, 1e-30f, -1e-30f, 0.625f, -0.625f});
    std::vector<float> out = grid, tanhs = grid, gelus = grid;
    std::vector<double> exps, capped, gelu;
    for (float x : grid) {
      exps.push_back(x < -87.33654 ? 0 : std::exp(double(x)));
      capped.push_back(50 * std::tanh(double(x) / 50));
      gelu.push_back(geluTanh(x));
    }
    k->expSum(out.data(), 0, int64_t(out.size()));
    checkRow(*k, out.data(), exps, 2.4e-7, 1.2e-38);
    k->softcap(tanhs.data(), 50, int64_t(tanhs.size()));
    checkRow(*k, tanhs.data(), capped, 5e-7);
    k->gelu(gelus.data(), int64_t(gelus.size()));
    // 1 + tanh in the reference cancels for negative x
    for (size_t i = 0; i < gelu.size(); ++i)
      if (std::fabs(grid[i]) < 30) CHECK_CLOSE(gelus[i], gelu[i], 6e-7 * std::max(1e-3, std::fabs(double(grid[i]))));
  }
}

TEST(kernels_exp_of_minus_infinity_is_zero_and_nan_stays) {
  for (const Kernels* k : everyTable()) {
    std::vector<float> x(19, -INFINITY);
    x[3] = 0, x[18] = 1;
    CHECK_CLOSE(k->expSum(x.data(), 1, 19), 1 + std::exp(-1.0), 1e-6);
    CHECK_EQUAL(x[0], 0.0f);
    CHECK_EQUAL(x[17], 0.0f);
    std::vector<float> y(19, 1.0f);
    y[5] = NAN;
    k->expSum(y.data(), 0, 19);
    CHECK(std::isnan(y[5]) && !std::isnan(y[4]));
  }
}

TEST(kernels_activations_match_plain_loops_at_every_length) {
  forLengths([](const Kernels& k, int64_t n, int64_t offset) {
    const std::vector<float> a = randoms(size_t(n + offset), 3, 3), b = randoms(size_t(n + offset), 4);
    std::vector<double> gelu, product, capped, exps;
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double x = a[size_t(i + offset)];
      gelu.push_back(geluTanh(x));
      product.push_back(geluTanh(x) * b[size_t(i + offset)]);
      capped.push_back(4 * std::tanh(x / 4));
      exps.push_back(std::exp(x - 2));
      sum += exps.back();
    }
    const auto run = [&](auto kernel) {
      std::vector<float> x = a;
      x.push_back(123);
      kernel(x.data() + offset);
      CHECK_EQUAL(x.back(), 123.0f);
      return x;
    };
    checkRow(k, run([&](float* x) { k.gelu(x, n); }).data() + offset, gelu, 1e-6, 1e-6);
    checkRow(k, run([&](float* x) { k.geluMul(x, x, b.data() + offset, n); }).data() + offset, product, 1e-6, 3e-6);
    checkRow(k, run([&](float* x) { k.softcap(x, 4, n); }).data() + offset, capped, 5e-7);
    checkRow(k, run([&](float* x) { CHECK_CLOSE(k.expSum(x, 2, n), sum, 4e-7 * sum + 1e-30); }).data() + offset, exps,
             4e-7);
  });
}

TEST(kernels_finish_sums_as_plain_loops_do) {
  for (const Kernels* k : everyTable())
    for (int64_t n : {1, 5, 8, 15, 16, 17, 31, 32, 35})
      for (Epilogue kind : {Epilogue::store, Epilogue::gelu, Epilogue::add, Epilogue::geglu})
        for (bool bias : {false, true}) {
          const int64_t tokens = 3, stride = n + 7;
          const std::vector<float> acc = randoms(size_t(tokens * 40), 23), second = randoms(size_t(tokens * 40), 24),
                                   add = randoms(size_t(n), 25), more = randoms(size_t(n), 26);
          std::vector<float> out(size_t(tokens * stride), 5);
          k->finish(kind, out.data(), stride,
                    {acc.data(), second.data(), 40, bias ? add.data() : nullptr, bias ? more.data() : nullptr}, n,
                    tokens);
          for (int64_t t = 0; t < tokens; ++t)
            for (int64_t i = 0; i < stride; ++i) {
              double want = 5;
              if (i < n) {
                const double y = acc[size_t(t * 40 + i)] + (bias ? add[size_t(i)] : 0),
                             z = second[size_t(t * 40 + i)] + (bias ? more[size_t(i)] : 0);
                want = kind == Epilogue::store ? y
                       : kind == Epilogue::add ? 5 + y
                                               : geluTanh(y) * (kind == Epilogue::geglu ? z : 1);
              }
              CHECK_CLOSE(out[size_t(t * stride + i)], want, 2e-6 * std::max(1.0, std::fabs(want)));
            }
        }
}

TEST(kernels_norms_and_rotation_match_plain_loops_at_every_length) {
  forLengths([](const Kernels& k, int64_t n, int64_t offset) {
    if (n == 0) return;
    const std::vector<float> a = randoms(size_t(n + offset), 5, 2), w = randoms(size_t(n + offset), 6),
                             b = randoms(size_t(n + offset), 7);
    const float* x = a.data() + offset;
    double squares = 0, mean = 0, variance = 0;
    for (int64_t i = 0; i < n; ++i) squares += double(x[i]) * x[i], mean += x[i] / double(n);
    for (int64_t i = 0; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean);
    std::vector<double> rms, added, layer;
    for (int64_t i = 0; i < n; ++i) {
      rms.push_back(x[i] / std::sqrt(squares / double(n) + 1e-3) * w[size_t(i + offset)]);
      added.push_back(rms.back() + 5);
      layer.push_back((x[i] - mean) / std::sqrt(variance / double(n) + 1e-3) * w[size_t(i + offset)] +
                      b[size_t(i + offset)]);
    }
    std::vector<float> out(size_t(n + offset + 1), 5);
    k.rmsNorm(out.data() + offset, x, w.data() + offset, 1e-3f, true, n);
    checkRow(k, out.data() + offset, added, 1e-6, 1e-6);
    k.rmsNorm(out.data() + offset, x, w.data() + offset, 1e-3f, false, n);
    checkRow(k, out.data() + offset, rms, 1e-6);
    k.layerNorm(out.data() + offset, x, w.data() + offset, b.data() + offset, 1e-3f, n);
    checkRow(k, out.data() + offset, layer, 1e-6, 2e-6);
    CHECK_EQUAL(out.back(), 5.0f);

    std::vector<float> pair = randoms(size_t(2 * n + offset), 8);
    std::vector<double> turned(size_t(2 * n));
    for (int64_t i = 0; i < n; ++i) {
      const double p = pair[size_t(offset + i)], q = pair[size_t(offset + n + i)], c = w[size_t(i + offset)],
                   s = b[size_t(i + offset)];
      turned[size_t(i)] = p * c - q * s;
      turned[size_t(n + i)] = q * c + p * s;
    }
    k.rope(pair.data() + offset, w.data() + offset, b.data() + offset, n);
    checkRow(k, pair.data() + offset, turned, 1e-6, 1e-6);
  });
}

TEST(kernels_conversions_agree_with_the_quantizers) {
  for (const Kernels* k : everyTable())
    for (DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0, DType::q4_0, DType::q6_k})
      for (int64_t n = 0; n <= 512; n += dtypeInfo(type)->block == 1 ? 37 : dtypeInfo(type)->block) {
        std::vector<float> x = randoms(size_t(n), 9), back(size_t(n) + 1, 7),
                           want(size_t(n) + 1);  // never a null pointer
        if (n > 4 && dtypeInfo(type)->block == 1) x[0] = 70000, x[1] = 1e-7f, x[2] = -6e-8f, x[3] = 65504;
        std::vector<uint8_t> bytes(bytesFor(type, n) + 1), own(bytesFor(type, n) + 1, 0x55);
        quantizeRow(type, x.data(), bytes.data(), n);
        dequantizeRow(type, bytes.data(), want.data(), n);
        k->toF32(type, bytes.data(), back.data(), n);
        CHECK(std::memcmp(back.data(), want.data(), size_t(n) * 4) == 0);
        CHECK_EQUAL(back.back(), 7.0f);
        if (type == DType::f16 || type == DType::f32 || type == DType::q8_0) {
          k->fromF32(type, x.data(), own.data(), n);
          CHECK(std::memcmp(own.data(), bytes.data(), bytes.size() - 1) == 0);
          CHECK_EQUAL(own.back(), 0x55);
        }
      }
}

TEST(kernels_f32_tile_multiplies_what_was_packed) {
  for (const Kernels* k : everyTable()) {
    const int64_t height = k->tileRows, width = k->tileTokens;
    for (DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0})
      for (int64_t n :
           type == DType::q8_0 ? std::vector<int64_t>{32, 96} : std::vector<int64_t>{1, 2, 7, 15, 16, 17, 33, 35, 100})
        for (int64_t rows : {int64_t(1), height - 1, height})
          for (int64_t tokens : {int64_t(1), width - 1, width}) {
            const int64_t column = type == DType::q8_0 ? 32 : 3;
            const Rows w(type, rows, n + column, 10);
            const std::vector<float> x = randoms(size_t(tokens * (n + 5)), 11);
            std::vector<float> panel(size_t(height * n)), packed(size_t(width * n)),
                out(size_t(width * (height + 3)), 1);
            k->packRows(type, w.data(), w.stride, rows, column, n, panel.data());
            k->packTokens(x.data(), n + 5, tokens, n, packed.data());
            for (bool add : {false, true}) {
              std::vector<float> y = out;
              k->tile(y.data(), height + 3, panel.data(), packed.data(), n, add);
              for (int64_t t = 0; t < width; ++t)
                for (int64_t r = 0; r < height; ++r) {
                  double want = add, size = 1;
                  if (t < tokens && r < rows)
                    for (int64_t c = 0; c < n; ++c) {
                      const double p =
                          double(x[size_t(t * (n + 5) + c)]) * w.values[size_t(r * (n + column) + column + c)];
                      want += p, size += std::fabs(p);
                    }
                  CHECK_CLOSE(y[size_t(t * (height + 3) + r)], want, 3e-7 * size);
                }
            }
          }
  }
}

// What 8-bit activations are: 127ths of the largest of 32.
static std::vector<float> roundedInBlocks(const float* x, int64_t n) {
  std::vector<float> rounded(x, x + n);
  for (int64_t c = 0; c < n; c += 32) {
    float top = 0;
    for (int64_t i = c; i < c + 32; ++i) top = std::max(top, std::fabs(rounded[size_t(i)]));
    for (int64_t i = c; i < c + 32; ++i)
      rounded[size_t(i)] = std::nearbyint(rounded[size_t(i)] * (127 / top)) * (top / 127);
  }
  return rounded;
}

TEST(kernels_decode_rows_match_double_sums) {
  for (const Kernels* k : everyTable())
    for (DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0})
      for (int64_t n : type == DType::q8_0 ? std::vector<int64_t>{32, 64, 160}
                                           : std::vector<int64_t>{1, 5, 8, 15, 16, 17, 31, 32, 33, 35, 64, 67, 300})
        for (int64_t tokens = 1; tokens <= kMaxDecodeTokens; ++tokens) {
          const int64_t rows = 3;
          const Rows w(type, rows, n, 14);
          const std::vector<float> x = randoms(size_t(tokens * (n + 1)), 15);
          std::vector<float> out(size_t(tokens * rows));
          k->dotRows(type, w.data(), w.stride, rows, n, x.data(), n + 1, tokens, out.data());
          for (int64_t t = 0; t < tokens; ++t)
            for (int64_t r = 0; r < rows; ++r) {
              double want = 0, size = 0;
              for (int64_t c = 0; c < n; ++c) {
                const double p = double(x[size_t(t * (n + 1) + c)]) * w.values[size_t(r * n + c)];
                want += p, size += std::fabs(p);
              }
              CHECK_CLOSE(out[size_t(t * rows + r)], want, 3e-7 * size);
            }
        }
}

TEST(kernels_eight_bit_decode_is_exact_for_its_quantized_activations) {
  for (const Kernels* k : everyTable()) {
    if (!k->dotRows8) continue;
    for (DType type : kEightBitTypes)
      for (int64_t n : dtypeInfo(type)->block == 256 ? std::vector<int64_t>{256, 512, 2304}
                                                     : std::vector<int64_t>{32, 64, 224, 256, 288, 1152})
        for (int64_t tokens = 1; tokens <= kMaxDecodeTokens; ++tokens) {
          const int64_t rows = 5;
          const Rows w(type, rows, n, 16);
          const std::vector<float> x = randoms(size_t(tokens * n), 17);
          std::vector<float> out(size_t(tokens * rows));
          const TokenBlocks blocks(*k, x.data(), tokens, n);
          k->dotRows8(type, w.data(), w.stride, rows, n, blocks.data, tokens, out.data());
          for (int64_t t = 0; t < tokens; ++t) {
            const std::vector<float> rounded = roundedInBlocks(x.data() + t * n, n);
            for (int64_t r = 0; r < rows; ++r) {
              double want = 0, size = 0;
              for (int64_t c = 0; c < n; ++c) {
                const double p = double(rounded[size_t(c)]) * w.values[size_t(r * n + c)];
                want += p, size += std::fabs(p);
              }
              // offsets are taken away in f32: a few times the rounding of the products
              if (!(std::fabs(out[size_t(t * rows + r)] - want) <= 4e-6 * size))
                throw test::Failure{std::string(k->isa) + " " + dtypeName(type) + " " + std::to_string(n),
                                    std::to_string(out[size_t(t * rows + r)]) + " instead of " + std::to_string(want)};
            }
            // the bits are those of the token alone
            std::vector<float> alone(static_cast<size_t>(rows));
            k->dotRows8(type, w.data(), w.stride, rows, n, blocks.data + t * ((n + 255) / 256) * k->tokenBlockBytes, 1,
                        alone.data());
            CHECK(std::memcmp(alone.data(), out.data() + t * rows, size_t(rows) * sizeof(float)) == 0);
          }
        }
  }
}

TEST(kernels_level_tile_matches_products_of_rounded_activations) {
  for (const Kernels* k : everyTable()) {
    if (!k->hasLevels) continue;
    const int64_t height = k->tileRows, width = k->tileTokens;
    for (DType type : kEightBitTypes) {
      if (!k->hasLevels(type)) continue;
      const bool super = dtypeInfo(type)->block == 256;
      for (int64_t n : super ? std::vector<int64_t>{256, 768} : std::vector<int64_t>{32, 64, 96, 256, 320, 352})
        for (int64_t rows : {int64_t(1), height / 2 + 1, height})
          for (int64_t tokens : {int64_t(1), width - 1, width}) {
            const int64_t column = 256;
            const Rows w(type, rows, n + column, 12);
            const std::vector<float> x = randoms(size_t(tokens * (n + 3)), 13);
            std::vector<uint8_t> panel(size_t(n / 32 * k->levelBlockBytes)),
                packed(size_t((n + 255) / 256 * width * k -> tokenBlockBytes));
            std::vector<float> out(size_t(width * height), 2);
            k->packLevels(type, w.data(), w.stride, rows, column, n, panel.data());
            k->packTokenLevels(x.data(), n + 3, tokens, n, packed.data());
            k->tileLevels(type, out.data(), panel.data(), packed.data(), n / 32);
            for (int64_t t = 0; t < width; ++t)
              for (int64_t r = 0; r < height; ++r) {
                double want = 2, size = 2;   // it adds to what is there
                if (t < tokens && r < rows) {
                  const std::vector<float> rounded = roundedInBlocks(x.data() + t * (n + 3), n);
                  for (int64_t c = 0; c < n; ++c) {
                    const double p = double(rounded[size_t(c)]) * w.values[size_t(r * (n + column) + column + c)];
                    want += p, size += std::fabs(p);
                  }
                }
                CHECK_CLOSE(out[size_t(t * height + r)], want, 4e-6 * size);
              }
          }
    }
  }
}

// The largest levels with the largest activations: nothing may saturate.
TEST(kernels_level_tile_has_room_for_the_largest_products) {
  for (const Kernels* k : everyTable()) {
    if (!k->hasLevels) continue;
    const int64_t n = 256, height = k->tileRows, width = k->tileTokens;
    for (DType type : kEightBitTypes) {
      if (!k->hasLevels(type)) continue;
      const size_t stride = bytesFor(type, n), block = bytesFor(type, dtypeInfo(type)->block);
      std::vector<uint8_t> w(stride * size_t(height), 0xff);
      for (size_t i = 0; i < w.size(); i += block) {
        w[i] = 0, w[i + 1] = 0x3c;  // slope 1
        if (dtypeInfo(type)->block == 256) w[i + 2] = w[i + 3] = 0;
      }
      std::vector<float> values(static_cast<size_t>(n)), out(size_t(width * height));
      dequantizeRow(type, w.data(), values.data(), n);
      for (const float value : {1.0f, -1.0f}) {
        const std::vector<float> x(size_t(width * n), value);
        std::vector<uint8_t> panel(size_t(n / 32 * k->levelBlockBytes)), packed(size_t(width * k -> tokenBlockBytes));
        double want = 0;
        for (const float v : values) want += double(v) * value;
        std::fill(out.begin(), out.end(), 0.0f);
        k->packLevels(type, w.data(), stride, height, 0, n, panel.data());
        k->packTokenLevels(x.data(), n, width, n, packed.data());
        k->tileLevels(type, out.data(), panel.data(), packed.data(), n / 32);
        for (const float y : out) CHECK_CLOSE(y, want, 1e-5 * std::fabs(want));
      }
    }
  }
}

TEST(kernels_zero_weights_and_activations_give_zero) {
  for (const Kernels* k : everyTable()) {
    if (!k->dotRows8) continue;
    for (DType type : kEightBitTypes) {
      const int64_t n = 256, height = k->tileRows, width = k->tileTokens, groups = n / kTileGroup;
      const std::vector<uint8_t> w(bytesFor(type, n) * size_t(height));  // all scales are zero
      for (float value : {0.0f, 1.0f}) {
        const std::vector<float> x(size_t(width * n), value);
        alignas(64) static uint8_t panel[32 * 256 * 2], tokens[12 * 256 * 2];
        std::vector<float> rowScales(size_t(height * groups)), tokenScales(size_t(width * groups)),
            out(size_t(width * height));
        std::vector<int32_t> offsets(size_t(width * groups));
        if (k->packRows8) {
          k->packRows8(type, w.data(), bytesFor(type, n), height, 0, n, panel, rowScales.data());
          k->packTokens8(x.data(), n, width, n, tokens, tokenScales.data(), offsets.data());
          k->tile8(out.data(), panel, rowScales.data(), tokens, tokenScales.data(), offsets.data(), groups);
        }
        for (float y : out) CHECK_EQUAL(y, 0.0f);
        std::vector<float> y(static_cast<size_t>(height));
        k->dotRows8(type, w.data(), bytesFor(type, n), height, n, TokenBlocks(*k, x.data(), 1, n).data, 1, y.data());
        for (float v : y) CHECK_EQUAL(v, 0.0f);
      }
    }
  }
}

TEST(kernels_mix_adds_weighted_values) {
  for (const Kernels* k : everyTable())
    for (DType type : {DType::f32, DType::f16, DType::q8_0})
      for (int64_t tokens : {int64_t(1), int64_t(2), int64_t(3), k->tileTokens})
        for (int64_t cols : {32, 96, 256})
          for (int64_t keys : {1, 2, 63, 64}) {
            const Rows v(type, keys, cols, 18);
            const int64_t stride = cols + 16;
            const std::vector<float> p = randoms(size_t(tokens * kTileGroup), 19), keep = randoms(size_t(tokens), 20),
                                     start = randoms(size_t(tokens * stride), 21);
            std::vector<float> out = start;
            k->mix(out.data(), stride, keep.data(), p.data(), type, v.data(), v.stride, keys, cols, tokens);
            for (int64_t t = 0; t < tokens; ++t)
              for (int64_t c = 0; c < cols; ++c) {
                double want = double(start[size_t(t * stride + c)]) * keep[size_t(t)], size = std::fabs(want);
                for (int64_t key = 0; key < keys; ++key) {
                  const double q = double(p[size_t(t * kTileGroup + key)]) * v.values[size_t(key * cols + c)];
                  want += q, size += std::fabs(q);
                }
                CHECK_CLOSE(out[size_t(t * stride + c)], want, 3e-7 * size + 1e-30);
              }
          }
}

TEST(kernels_softmax_steps_make_one_softmax) {
  for (const Kernels* k : everyTable())
    for (int64_t n = 1; n <= 2 * kWidest + 3; ++n)
      for (float cap : {0.0f, 3.0f}) {
        const std::vector<float> scores = randoms(size_t(3 * n), 22, 4);
        double top = -INFINITY, sum = 0;
        std::vector<double> want;
        for (float s : scores) want.push_back(cap > 0 ? cap * std::tanh(s * 0.7 / cap) : s * 0.7);
        for (double s : want) top = std::max(top, s);
        for (double& s : want) sum += s = std::exp(s - top);
        float runningTop = -INFINITY, runningSum = 0;
        std::vector<float> x = scores;
        for (int64_t step = 0; step < 3; ++step) {
          const float keep = k->softmaxStep(x.data() + step * n, 0.7f, cap, &runningTop, &runningSum, n);
          if (step == 0) CHECK_EQUAL(keep, 0.0f);
          for (int64_t i = 0; i < step * n; ++i) x[size_t(i)] *= keep;
        }
        CHECK_CLOSE(runningSum, sum, 2e-6 * sum);
        for (size_t i = 0; i < want.size(); ++i) CHECK_CLOSE(x[i], want[i], 3e-6);
      }
}

TEST(kernels_can_be_forced_by_name) {
  for (const std::string& isa : supportedIsas()) CHECK_EQUAL(std::string(kernelsFor(isa)->isa), isa);
  CHECK(kernelsFor("mmx") == nullptr);
}

}  // namespace pg
