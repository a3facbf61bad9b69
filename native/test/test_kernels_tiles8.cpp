// Tiles in 8 bits: close to the product, and the same however the weights lie.
#include "kernels_fixture.h"

namespace pg {

TEST(kernels_eight_bit_tile_stays_close_to_the_product) {
  for (const Kernels* k : everyTable()) {
    if (!k->packRows8) continue;
    const int64_t height = k->tileRows, width = k->tileTokens;
    std::vector<DType> types(std::begin(kEightBitTypes), std::end(kEightBitTypes));
    types.push_back(DType::f32);
    for (DType type : types) {
      const bool super = dtypeInfo(type)->block == 256;
      for (int64_t n : super                ? std::vector<int64_t>{256, 768}
                       : type == DType::f32 ? std::vector<int64_t>{1, 63, 64, 65, 300}
                                            : std::vector<int64_t>{32, 64, 96, 256, 320, 352})
        for (int64_t rows : {int64_t(1), height / 2 + 1, height})
          for (int64_t tokens : {int64_t(1), width}) {
            const int64_t column = 256, groups = (n + kTileGroup - 1) / kTileGroup;
            const Rows w(type, rows, n + column, 12);
            const std::vector<float> x = randoms(size_t(tokens * n), 13);
            // aligned as the driver's scratch is
            std::vector<uint8_t> panelBytes(size_t(height * groups * kTileGroup * k->panelBytes) + 64),
                tokenBytes(size_t(width * groups * kTileGroup * k -> tokenBytes) + 64);
            const auto aligned = [](std::vector<uint8_t>& v) {
              return reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(v.data()) + 63) & ~uintptr_t(63));
            };
            std::vector<float> rowScales(size_t(height * groups)), tokenScales(size_t(width * groups)),
                out(size_t(width * height), 2);
            std::vector<int32_t> offsets(size_t(width * groups));
            k->packRows8(type, w.data(), w.stride, rows, column, n, aligned(panelBytes), rowScales.data());
            k->packTokens8(x.data(), n, tokens, n, aligned(tokenBytes), tokenScales.data(), offsets.data());
            k->tile8(out.data(), aligned(panelBytes), rowScales.data(), aligned(tokenBytes), tokenScales.data(),
                     offsets.data(), groups);
            double difference = 0, size = 0;
            for (int64_t t = 0; t < width; ++t)
              for (int64_t r = 0; r < height; ++r) {
                double want = 0, squares = 0;
                if (t < tokens && r < rows)
                  for (int64_t c = 0; c < n; ++c) {
                    const double p = double(x[size_t(t * n + c)]) * w.values[size_t(r * (n + column) + column + c)];
                    want += p, squares += p * p;
                  }
                const double error = out[size_t(t * height + r)] - 2 - want;   // it adds to what is there
                difference += error * error, size += squares;
                if (t >= tokens || r >= rows) CHECK_CLOSE(out[size_t(t * height + r)], 2, 1e-6);
              }
            const double relative = std::sqrt(difference / size);
            if (!(relative < 0.016))
              throw test::Failure{std::string(k->isa) + " " + dtypeName(type) + " " + std::to_string(n),
                                  "relative error " + std::to_string(relative)};
          }
    }
  }
}

TEST(kernels_eight_bit_panels_do_not_depend_on_how_the_weights_lie) {
  for (const Kernels* k : everyTable()) {
    if (!k->packRows8) continue;
    const int64_t height = k->tileRows, stride = height + 3;
    for (const int64_t n : {1, 2, 3, 31, 63, 64}) {
      std::vector<float> x = randoms(size_t(n * stride), 16), turned(size_t(height * n));
      for (int64_t i = 0; i < n; ++i) x[size_t(i * stride + 1)] = 0;
      for (int64_t i = 0; i < n; ++i)
        for (int64_t r = 0; r < height; ++r) turned[size_t(r * n + i)] = x[size_t(i * stride + r)];
      const size_t bytes = size_t(height * kTileGroup * k->panelBytes);
      alignas(64) uint8_t rows[64 * kTileGroup * 4], columns[64 * kTileGroup * 4];
      CHECK(bytes <= sizeof rows);
      std::vector<float> rowScales(static_cast<size_t>(height)), columnScales(static_cast<size_t>(height));
      k->packRows8(DType::f32, reinterpret_cast<const uint8_t*>(turned.data()), size_t(n) * sizeof(float), height, 0, n,
                   rows, rowScales.data());
      k->packColumns8(x.data(), stride, n, columns, columnScales.data());
      CHECK(std::equal(rows, rows + bytes, columns));
      CHECK(rowScales == columnScales);
    }
  }
}

}  // namespace pg
