// The table of AMX, whose instructions the emulator runs: its tiles by plain loops, its products whole, by any number
// of threads, and beside AVX-512's, whose bits they have.
#include "cpu/check_kernels.h"
#include "cpu/cpu_device.h"
#include "kernels_fixture.h"
#include "ops_fixture.h"

namespace pg {
namespace {

std::vector<const Kernels*> emulatedTables() {
  std::vector<const Kernels*> tables;
  for (const Kernels* k : everyTable())
    if (std::string(k->isa).starts_with("amx-over-")) tables.push_back(k);
  return tables;
}

std::vector<float> productOf(const Kernels& kernels, int threads, const test::Matrix& w, int64_t m) {
  CpuDevice device(kernels, threads);
  const test::Matrix::Placed placed = w.on(device);
  const test::Floats x(device, test::randoms(size_t(m * w.cols), 8), m, w.cols), y(device, m, w.rows);
  const MatmulJob job{y, &placed.linear};
  device.matmul(x, {&job, 1});
  return y.values();
}

}  // namespace

TEST(amx_tiles_are_plain_sums_of_bytes) {
  std::mt19937 generator(1);
  for (const Kernels* k : emulatedTables())
    for (const int64_t groups : {0, 1, 2, 5}) {
      const int64_t height = k->tileRows, width = k->tileTokens;
      std::vector<uint8_t> panel(size_t(groups * kTileGroup * height)), tokens(size_t(groups * kTileGroup * width));
      for (uint8_t& byte : panel) byte = uint8_t(generator());
      for (uint8_t& byte : tokens) byte = uint8_t(generator());
      const std::vector<float> rowScales = randoms(size_t(groups * height), 2),
                               tokenScales = randoms(size_t(groups * width), 3);
      std::vector<float> out = randoms(size_t(width * height), 4), want = out;
      k->tile8(out.data(), panel.data(), rowScales.data(), tokens.data(), tokenScales.data(), nullptr, groups);
      for (int64_t g = 0; g < groups; ++g)
        for (int64_t t = 0; t < width; ++t)
          for (int64_t r = 0; r < height; ++r) {
            int32_t sum = 0;
            for (int64_t c = 0; c < kTileGroup; ++c)
              sum += int8_t(panel[size_t(g * kTileGroup * height + c / 4 * 4 * height + 4 * r + c % 4)]) *
                     int8_t(tokens[size_t((g * width + t) * kTileGroup + c)]);
            float& y = want[size_t(t * height + r)];
            y = std::fma(rowScales[size_t(g * height + r)] * tokenScales[size_t(g * width + t)], float(sum), y);
          }
      CHECK(out == want);
    }
}

TEST(amx_products_have_the_bits_of_avx512) {
  for (const Kernels* k : emulatedTables())
    for (const DType type : {DType::q8_0, DType::q4_0, DType::q4_k, DType::q5_k, DType::q6_k, DType::q4_1, DType::f16})
      for (const int64_t m : {9, 12, 31}) {
        const test::Matrix w(type, 45, dtypeInfo(type)->block == 256 ? 512 : 352, 7);
        const std::vector<float> y = productOf(*k, 1, w, m);
        for (const int threads : {2, 3}) CHECK(productOf(*k, threads, w, m) == y);
        const std::vector<float> plain = productOf(kKernelsScalar, 1, w, m);
        const std::vector<double> want(plain.begin(), plain.end());
        CHECK(test::relativeError(y, want) < test::matmulTolerance(k->isa, type));
        if (const Kernels* plain512 = kernelsFor("avx512vnni"); plain512 && k->tileTokens == plain512->tileTokens)
          CHECK(y == productOf(*plain512, 1, w, m));
      }
}

TEST(amx_kernels_pass_the_check_at_start) {
  for (const Kernels* k : emulatedTables())
    for (const CheckDepth depth : {CheckDepth::startup, CheckDepth::whole})
      for (const KernelCheck& check : checkKernels(*k, depth))
        if (!check.ok()) throw test::Failure{k->isa, check.kernel};
}

}  // namespace pg
