// The products of every device against plain double loops, on every instruction set that runs here, for 1 to 3 threads
// and far away, which must agree to the last bit.
#include "golden.h"
#include "ops_fixture.h"

namespace pg {
namespace {

using namespace test;

std::vector<float> product(Device& device, const Matrix& w, const std::vector<float>& x, int64_t m) {
  const Matrix::Placed placed = w.on(device);
  const Floats out(device, m, w.rows);
  const MatmulJob job{out, &placed.linear};
  device.matmul(Floats(device, x, m, w.cols), {&job, 1});
  return out.values();
}

OnGpu some(bool which) { return which ? OnGpu::yes : OnGpu::no; }

}  // namespace

TEST(ops_matmul_matches_double_loops_for_every_type_and_row_count) {
  const Epilogue epilogues[] = {Epilogue::store, Epilogue::gelu, Epilogue::add};
  for (DType type : kWeightTypes) {
    const int64_t block = dtypeInfo(type)->block;
    for (int64_t m : {1, 2, 5, 8, 9, 13, 37}) {
      const int64_t k = block == 1 ? 75 : block == 32 ? 352 : 768, n = 83;
      const std::vector<float> bias = randoms(size_t(n), 7);
      const Matrix a(type, n, k, 1, bias), b(type, 33, k, 2);
      const std::vector<float> x = randoms(size_t(m * k), 3);
      const std::vector<float> start = randoms(size_t(m * n), 4);
      for (Epilogue epilogue : epilogues) {
        std::vector<double> want(size_t(m * n + m * 33));
        for (int64_t i = 0; i < m; ++i)
          for (int64_t j = 0; j < n + 33; ++j) {
            const float* w = j < n ? a.values.data() + j * k : b.values.data() + (j - n) * k;
            double y = j < n ? bias[size_t(j)] : 0;
            for (int64_t c = 0; c < k; ++c) y += double(x[size_t(i * k + c)]) * w[c];
            if (j < n && epilogue == Epilogue::gelu) y = geluTanh(y);
            if (j < n && epilogue == Epilogue::add) y += start[size_t(i * n + j)];
            want[size_t(j < n ? i * n + j : m * n + i * 33 + j - n)] = y;
          }
        onEveryDevice(
            [&](Device& device, const std::string& isa) {
              const Matrix::Placed first = a.on(device), second = b.on(device);
              const Floats y(device, start, m, n), z(device, m, 33);
              const MatmulJob jobs[] = {{y, &first.linear, epilogue}, {z, &second.linear}};
              device.matmul(Floats(device, x, m, k), jobs);
              std::vector<float> out = y.values();
              const std::vector<float> more = z.values();
              out.insert(out.end(), more.begin(), more.end());
              const double error = relativeError(out, want);
              if (!(error < matmulTolerance(isa, type)))
                throw Failure{isa + " " + dtypeName(type) + " m " + std::to_string(m),
                              "relative error " + std::to_string(error)};
              return out;
            },
            some(m == 5 ? epilogue == Epilogue::add : m == 37 && epilogue == Epilogue::gelu));
      }
    }
  }
}

TEST(ops_a_row_of_a_product_does_not_depend_on_its_company) {
  for (DType type : kWeightTypes) {
    const int64_t k = 512, n = 50;
    const Matrix w(type, n, k, 11);
    std::vector<float> x = randoms(size_t(40 * k), 12);
    for (const std::string& isa : supportedIsas()) {
      CpuDevice device(*kernelsFor(isa), 2);
      const Matrix::Placed placed = w.on(device);
      const Floats all40(device, x, 40, k);
      const auto product = [&](int64_t first, int64_t m) {
        const Floats out(device, m, n);
        const MatmulJob job{out, &placed.linear};
        device.matmul(all40.slice(first, m), {&job, 1});
        return out.values();
      };
      // the decode kernels, then the tiles
      const std::vector<float> eight = product(0, 8), all = product(0, 40);
      for (int64_t first : {0, 3, 7})
        for (int64_t m = 1; first + m <= 8; ++m) {
          const std::vector<float> some = product(first, m);
          CHECK(std::memcmp(some.data(), eight.data() + first * n, some.size() * sizeof(float)) == 0);
        }
      for (int64_t first : {0, 5, 23})
        for (int64_t m : {9, 12, 17}) {
          const std::vector<float> some = product(first, m);
          CHECK(std::memcmp(some.data(), all.data() + first * n, some.size() * sizeof(float)) == 0);
        }
    }
  }
}

TEST(ops_large_product_crosses_every_block_of_the_tiling) {
  for (DType type : {DType::f16, DType::q8_0, DType::q4_k}) {
    const int64_t m = 523, k = 2304, n = 70;
    const Matrix w(type, n, k, 21);
    std::vector<float> x = randoms(size_t(m * k), 22);
    std::vector<double> want(size_t(m * n));
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j)
        for (int64_t c = 0; c < k; ++c)
          want[size_t(i * n + j)] += double(x[size_t(i * k + c)]) * w.values[size_t(j * k + c)];
    onEveryDevice(
        [&](Device& device, const std::string& isa) {
          const std::vector<float> out = product(device, w, x, m);
          CHECK(relativeError(out, want) < matmulTolerance(isa, type));
          return out;
        },
        OnGpu::no);
  }
}

TEST(ops_product_survives_outlier_channels) {
  // a few columns a hundred times larger than the rest, as in the residual stream of Gemma
  const int64_t m = 24, k = 2048, n = 64;
  for (DType type : {DType::q8_0, DType::q4_0, DType::q4_k, DType::q6_k})
    for (int64_t rows : {int64_t(1), m}) {
      const Matrix w(type, n, k, 31);
      std::vector<float> x = randoms(size_t(rows * k), 32);
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t c : {5, 700, 1313}) x[size_t(i * k + c)] *= 100;
      std::vector<double> want(size_t(rows * n));
      for (int64_t i = 0; i < rows; ++i)
        for (int64_t j = 0; j < n; ++j)
          for (int64_t c = 0; c < k; ++c)
            want[size_t(i * n + j)] += double(x[size_t(i * k + c)]) * w.values[size_t(j * k + c)];
      onEveryDevice(
          [&](Device& device, const std::string& isa) {
            const std::vector<float> out = product(device, w, x, rows);
            const double error = relativeError(out, want);
            if (!(error < (rows == 1 ? 0.02 : 0.03)))
              throw Failure{isa + " " + dtypeName(type), "relative error " + std::to_string(error)};
            return out;
          },
          some(type == DType::q4_k));
    }
}

// Weights of a file take their packed form in the second submission; rows of them stay as they are.
TEST(ops_packed_weights_give_the_same_bits) {
  for (DType type : {DType::q8_0, DType::q4_0, DType::q4_k, DType::f32}) {
    const int64_t k = 1024, n = 189, m = 21;
    const Matrix a(type, n, k, 11);
    const std::vector<float> x = randoms(size_t(m * k), 12);
    const TemporaryFile content(std::string(a.bytes.begin(), a.bytes.end()));
    onEveryDevice(
        [&](Device& device, const std::string&) {
          const auto file = std::make_shared<MappedFile>(content.path());
          Linear linear;
          const Placement weight{
              .host = {file->data(), type, n, k}, .file = file, .manyRows = true, .to = &linear.weight};
          const std::vector<Buffer> memory = device.place({&weight, 1});
          const Floats in(device, x, m, k);
          std::vector<std::vector<float>> results;
          for (int pass = 0; pass < 3; ++pass) {
            const Floats out(device, m, n), part(device, m, 64);
            const Linear rows = linear.rows(0, 64);
            device.submit([&] {
              const MatmulJob job{out, &linear}, some{part, &rows};
              device.matmul(in, {&job, 1});
              device.matmul(in, {&some, 1});
            });
            results.push_back(out.values());
            CHECK(results.back() == results.front());
            const std::vector<float> few = part.values();
            for (int64_t r = 0; r < m; ++r)
              CHECK(std::memcmp(few.data() + r * 64, results[0].data() + r * n, 64 * sizeof(float)) == 0);
          }
          return results[0];
        },
        some(type == DType::q4_0));
  }
}

TEST(ops_weights_are_packed_in_the_second_submission) {
  const int64_t k = 512, n = 50;
  const Matrix a(DType::q8_0, n, k, 13);
  const TemporaryFile content(std::string(a.bytes.begin(), a.bytes.end()));
  for (const std::string& isa : supportedIsas()) {
    ThreadPool pool(1);
    Gemm gemm(*kernelsFor(isa), pool);
    PackedWeights packed(gemm);
    const auto file = std::make_shared<MappedFile>(content.path());
    const ConstHostView weight{file->data(), DType::q8_0, n, k};
    packed.add(weight, file);
    CHECK(packed.find(weight, 4) == nullptr);
    CHECK(packed.find(weight, 4) == nullptr);
    CHECK_EQUAL(packed.find(weight, 5) != nullptr, gemm.packedBytes(weight) > 0);
    CHECK(packed.find(weight.slice(0, 16), 6) == nullptr);
  }
}

TEST(ops_geglu_is_gelu_of_gate_times_up) {
  for (DType type : {DType::f32, DType::q8_0, DType::q4_0, DType::q4_k})
    for (int64_t m : {1, 3, 19}) {
      const int64_t k = 256, n = 90;
      const Matrix gate(type, n, k, 41), up(type, n, k, 42);
      std::vector<float> x = randoms(size_t(m * k), 43, 0.5f);
      std::vector<double> want(size_t(m * n));
      for (int64_t i = 0; i < m; ++i)
        for (int64_t j = 0; j < n; ++j) {
          double g = 0, u = 0;
          for (int64_t c = 0; c < k; ++c) {
            g += double(x[size_t(i * k + c)]) * gate.values[size_t(j * k + c)];
            u += double(x[size_t(i * k + c)]) * up.values[size_t(j * k + c)];
          }
          want[size_t(i * n + j)] = geluTanh(g) * u;
        }
      onEveryDevice([&](Device& device, const std::string& isa) {
        const Matrix::Placed first = gate.on(device), second = up.on(device);
        const Floats out(device, m, n);
        device.geglu(out, Floats(device, x, m, k), first.linear, second.linear);
        CHECK(relativeError(out.values(), want) < 2 * matmulTolerance(isa, type));
        return out.values();
      });
    }
}

}  // namespace pg
