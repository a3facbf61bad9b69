// What is a GPU's alone: forms of weights, paths by the number of rows, memory given back early, devices that fail.
#include "base/half.h"
#include "golden.h"
#include "ops_fixture.h"

namespace pg {
namespace {

using namespace test;

gpu::EmulatorOptions options() { return emulated(kEmulatedCuda); }

std::unique_ptr<gpu::GpuDevice> gpuWith(gpu::EmulatorOptions options) {
  return std::make_unique<gpu::GpuDevice>(std::make_unique<gpu::EmulatedDriver>(std::move(options)));
}

std::vector<float> product(Device& device, const Linear& linear, ConstView x) {
  const Floats out(device, x.rows, linear.out());
  const MatmulJob job{out, &linear};
  device.matmul(x, {&job, 1});
  return out.values();
}

std::vector<double> doubles(const Matrix& w, const std::vector<float>& x, int64_t m) {
  std::vector<double> y(size_t(m * w.rows));
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < w.rows; ++j)
      for (int64_t c = 0; c < w.cols; ++c)
        y[size_t(i * w.rows + j)] += double(x[size_t(i * w.cols + c)]) * double(w.values[size_t(j * w.cols + c)]);
  return y;
}

const DType kGpuTypes[] = {DType::f32,  DType::f16,  DType::bf16, DType::q8_0,   DType::q4_0,
                           DType::q4_1, DType::q5_0, DType::q5_1, DType::q2_k,   DType::q3_k,
                           DType::q4_k, DType::q5_k, DType::q6_k, DType::iq4_nl, DType::iq4_xs};

}  // namespace

TEST(gpu_products_of_every_type_match_double_loops) {
  for (const std::string& kind : {kEmulatedCuda, kEmulatedMetal}) {
    const auto device = gpuWith(emulated(kind));
    for (DType type : kGpuTypes)
      for (int64_t m : {1, 9, 16, 17, 130}) {
        const int64_t block = dtypeInfo(type)->block, k = block == 1 ? 140 : block == 32 ? 160 : 512, n = 69;
        if (m == 130 && type != DType::q4_0 && type != DType::f16) continue;   // the same path with another reader
        const Matrix w(type, n, k, 1);
        const std::vector<float> x = randoms(size_t(m * k), 2);
        const Matrix::Placed placed = w.on(*device);
        const double error = relativeError(product(*device, placed.linear, Floats(*device, x, m, k)), doubles(w, x, m));
        const double tolerance = type == DType::bf16 ? (m > 16 ? 4e-3 : 1e-5) : matmulTolerance(kEmulatedCuda, type);
        if (!(error < tolerance))
          throw Failure{dtypeName(type), kind + ", m " + std::to_string(m) + ": error " + std::to_string(error)};
        if (m > 1) continue;
        const Floats row(*device, 2, k);
        device->embed(row, placed.linear.weight, Numbers(*device, {68, 0}, 2, 1), 3);
        for (int64_t c = 0; c < 2 * k; ++c)
          CHECK_CLOSE(row.values()[size_t(c)], 3 * w.values[size_t(c < k ? 68 * k + c : c - k)], 1e-5);
      }
  }
}

// Types without kernels become f16.
TEST(gpu_widens_weights_of_other_types) {
  std::mt19937 generator(3);
  for (const std::string& kind : {kEmulatedCuda, kEmulatedMetal})
    for (DType type : {DType::iq2_xxs, DType::iq2_xs, DType::iq2_s, DType::iq3_xxs, DType::iq3_s, DType::iq1_s,
                       DType::iq1_m, DType::tq1_0, DType::tq2_0}) {
      const auto device = gpuWith(emulated(kind));
      const int64_t rows = 7, cols = 512;
      const size_t rowBytes = bytesFor(type, cols);
      std::vector<uint8_t> bytes(rowBytes * size_t(rows));
      for (uint8_t& byte : bytes) byte = uint8_t(generator() & 0x17);   // no scale becomes large, let alone infinite
      Linear linear;
      const Placement weight{.host = {bytes.data(), type, rows, cols}, .file = {}, .to = &linear.weight};
      const auto memory = device->place({&weight, 1});
      CHECK(linear.weight.type == DType::f16);
      std::vector<uint16_t> halves(size_t(rows * cols));
      device->download(halves.data(), linear.weight);
      std::vector<float> row(static_cast<size_t>(cols));
      for (int64_t r = 0; r < rows; ++r) {
        dequantizeRow(type, bytes.data() + size_t(r) * rowBytes, row.data(), cols);
        for (int64_t c = 0; c < cols; ++c) CHECK_EQUAL(halves[size_t(r * cols + c)], f32ToF16(row[size_t(c)]));
      }
    }
}

// Where host and GPU share memory, what kernels can read in the file stays there.
TEST(gpu_maps_files_instead_of_copying_them) {
  const int64_t rows = 20, cols = 256;
  const Matrix plain(DType::f16, rows, 2 * cols, 1), blocks(DType::q4_0, rows, cols, 3),
      narrow(DType::f16, rows, 72, 2);
  const auto padding = [](std::string bytes) { return bytes.append((64 - bytes.size() % 64) % 64, '\0'); };
  const auto bytesOf = [](const Matrix& m) { return std::string(m.bytes.begin(), m.bytes.end()); };
  const std::string first = padding(bytesOf(plain)), second = first + padding(bytesOf(blocks));
  const std::vector<float> x = randoms(size_t(6 * cols), 4);
  for (const bool unified : {true, false})
    for (const bool mostlyNarrow : {false, true}) {
      gpu::EmulatorOptions options = emulated(kEmulatedMetal);
      options.unified = unified;
      const auto device = gpuWith(options);
      std::string text = second;
      for (int i = 0; i < (mostlyNarrow ? 30 : 1); ++i) text += bytesOf(narrow);
      const TemporaryFile content(text);
      auto file = std::make_shared<const MappedFile>(content.path());
      const std::weak_ptr<const MappedFile> watched = file;
      const size_t before = device->driver().freeBytes();
      Linear linears[3];
      const Matrix* const matrices[] = {&plain, &blocks, &narrow};
      const size_t offsets[] = {0, first.size(), second.size()};
      std::vector<Placement> weights;
      for (size_t i = 0; i < 3; ++i)
        weights.push_back({.host = {file->data() + offsets[i], matrices[i]->type, rows, matrices[i]->cols},
                           .file = file,
                           .to = &linears[i].weight});
      for (int i = 1; mostlyNarrow && i < 30; ++i) weights.push_back(weights[2]);
      std::vector<Buffer> memory = device->place(weights);
      weights.clear(), file.reset();
      const bool maps = unified && !mostlyNarrow;
      CHECK_EQUAL(watched.expired(), !maps);
      CHECK_EQUAL(before - device->driver().freeBytes() < plain.bytes.size(), maps);
      for (size_t i = 0; i < 3; ++i) {
        const Matrix& w = *matrices[i];
        const std::vector<float> part(x.begin(), x.begin() + 3 * w.cols);
        const std::vector<float> y = product(*device, linears[i], Floats(*device, part, 3, w.cols));
        CHECK(relativeError(y, doubles(w, part, 3)) < 1e-3);
      }
      memory.clear();
      CHECK(watched.expired());
    }
}

// Blocks that a file has at even addresses give the bits of those that were copied and taken apart: in steps, in tiles,
// through the gate, as rows of a table, in f32 and on their way back.
TEST(gpu_computes_the_same_over_mapped_blocks) {
  for (DType type : kGpuTypes) {
    if (!dtypeInfo(type)->quantized) continue;
    const int64_t block = dtypeInfo(type)->block, k = block == 32 ? 96 : 512, n = 37;
    const Matrix w(type, n, k, 5);
    const TemporaryFile content("ab" + std::string(w.bytes.begin(), w.bytes.end()));
    for (const bool matrixUnits : {true, false}) {
      std::vector<std::vector<float>> results[2];
      for (const bool unified : {true, false}) {
        gpu::EmulatorOptions options = emulated(kEmulatedMetal);
        options.unified = unified, options.matrixUnits = matrixUnits;
        const auto device = gpuWith(options);
        const auto file = std::make_shared<const MappedFile>(content.path());
        Linear linear;
        const Placement weight{.host = {file->data() + 2, type, n, k}, .file = file, .to = &linear.weight};
        const auto memory = device->place({&weight, 1});
        CHECK_EQUAL(linear.weight.offset, unified ? 2u : 0u);
        auto& all = results[unified];
        for (const int64_t m : {2, 18}) {
          const std::vector<float> x = randoms(size_t(m * k), 6);
          const Floats in(*device, x, m, k), gated(*device, m, n);
          all.push_back(product(*device, linear, in));
          CHECK(relativeError(all.back(), doubles(w, x, m)) < 1e-3);
          device->geglu(gated, in, linear, linear);
          all.push_back(gated.values());
        }
        const Floats row(*device, 2, k);
        device->embed(row, linear.weight, Numbers(*device, {n - 1, 0}, 2, 1), 3);
        all.push_back(row.values());
        std::vector<uint8_t> back(w.bytes.size());
        device->download(back.data(), linear.weight);
        CHECK(back == std::vector<uint8_t>(w.bytes.begin(), w.bytes.end()));
      }
      CHECK(results[0] == results[1]);
    }
  }
}

// Queries that f16 cannot hold: nothing that looks like a result.
TEST(gpu_attention_does_not_hide_numbers_that_are_too_large) {
  for (const std::string& kind : {kEmulatedCuda, kEmulatedMetal}) {
    const auto device = gpuWith(emulated(kind));
    const int64_t tokens = 40, dim = 64;
    std::vector<float> q = randoms(size_t(tokens * dim), 1);
    q[size_t(11 * dim + 5)] = 1e6f;
    const Floats in(*device, q, tokens, dim), kv(*device, randoms(size_t(tokens * dim), 2), tokens, dim);
    const Floats out(*device, tokens, dim);
    const Matrix::Placed next = Matrix(DType::q8_0, 8, dim, 3).on(*device);
    device->denseAttention(out, in, kv, kv, 1, 1, Precision::fast);
    CHECK_FAILS(product(*device, next.linear, out), Code::modelInvalid, "not finite");
  }
}

TEST(gpu_rows_of_products_do_not_depend_on_company) {
  const auto device = gpuWith(options());
  const int64_t k = 256, n = 20, most = device->limits().stepRows;
  const std::vector<float> x = randoms(size_t(40 * k), 12);
  const Floats all(*device, x, 40, k);
  for (DType type : {DType::f32, DType::f16, DType::bf16, DType::q4_0, DType::q4_k}) {
    const Matrix::Placed placed = Matrix(type, n, k, 11).on(*device);
    const auto same = [&](int64_t first, int64_t m, const std::vector<float>& among) {
      const std::vector<float> some = product(*device, placed.linear, all.slice(first, m));
      return std::memcmp(some.data(), among.data() + first * n, some.size() * sizeof(float)) == 0;
    };
    const std::vector<float> step = product(*device, placed.linear, all.slice(0, most));
    for (const auto& [first, m] : {std::pair<int64_t, int64_t>{0, 1}, {3, 1}, {9, 1}, {0, 8}, {7, 9}, {15, 1}})
      CHECK(same(first, m, step));
    const std::vector<float> many = product(*device, placed.linear, all);
    for (const auto& [first, m] : {std::pair<int64_t, int64_t>{0, 17}, {5, 20}}) CHECK(same(first, m, many));
  }
}

TEST(gpu_takes_rows_of_any_size_in_products) {
  // values that f16 cannot hold: rows are scaled, each by itself
  const auto device = gpuWith(options());
  const int64_t k = 96, n = 20;
  for (int64_t m : {6, 18})
    for (DType type : {DType::f16, DType::bf16, DType::q8_0}) {
      const Matrix w(type, n, k, 5);
      std::vector<float> x = randoms(size_t(m * k), 6);
      for (int64_t r = 0; r < m; ++r)
        for (int64_t c = 0; c < k; ++c) x[size_t(r * k + c)] *= std::pow(10.0f, float(4 * (r % 6) - 10));
      for (int64_t c = 0; c < k; ++c) x[size_t(2 * k + c)] = 0;
      const Matrix::Placed placed = w.on(*device);
      const std::vector<float> y = product(*device, placed.linear, Floats(*device, x, m, k));
      const std::vector<double> want = doubles(w, x, m);
      for (int64_t r = 0; r < m; ++r)
        CHECK(relativeError({y.begin() + r * n, y.begin() + (r + 1) * n},
                            {want.begin() + r * n, want.begin() + (r + 1) * n}) < 5e-3);
    }
}

TEST(gpu_gives_rows_of_weights_back_as_they_were) {
  const auto device = gpuWith(options());
  for (DType type : kGpuTypes) {
    const Matrix w(type, 5, dtypeInfo(type)->block == 1 ? 75 : 512, 21);
    const Matrix::Placed placed = w.on(*device);
    std::vector<uint8_t> bytes(w.bytes.size());
    device->download(bytes.data(), placed.linear.weight);
    CHECK(bytes == w.bytes);
  }
}

TEST(gpu_keeps_memory_that_gathered_ops_still_need) {
  const auto device = gpuWith(options());
  const Floats x(*device, {1, 2, 3, 4}, 1, 4);
  device->submit([&] {
    const Floats y(*device, {1, 1, 1, 1}, 1, 4);
    device->add(x, y);  // y goes before it runs
  });
  CHECK((x.values() == std::vector<float>{2, 3, 4, 5}));
}

TEST(gpu_says_what_it_refuses) {
  const auto device = gpuWith(options());
  std::vector<float> bad(64, 1);
  bad[9] = NAN;
  const Matrix::Placed w = Matrix(DType::q8_0, 4, 64, 1).on(*device);
  CHECK_FAILS(product(*device, w.linear, Floats(*device, bad, 1, 64)), Code::modelInvalid, "not finite");
  // and goes on
  CHECK(product(*device, w.linear, Floats(*device, std::vector<float>(64, 1), 1, 64)).size() == 4);

  gpu::EmulatorOptions small = options();
  small.memoryBytes = 1 << 20;
  CHECK_FAILS(gpuWith(small)->allocate(2 << 20), Code::outOfMemory, "MiB");
  gpu::EmulatorOptions failing = options();
  failing.launchesUntilLost = 3;
  const auto lost = gpuWith(failing);
  const Floats x(*lost, 1, 4);
  CHECK_FAILS(for (int i = 0; i < 5; ++i) lost->softcap(x, 3), Code::deviceLost, "lost");
}

}  // namespace pg
