// The ops on rows of every device against plain double loops; see test_ops.cpp.
#include <algorithm>

#include "ops_fixture.h"

namespace pg {
namespace {

using namespace test;

}  // namespace

TEST(ops_norms_match_double_loops) {
  const int64_t rows = 7;
  for (int64_t cols : {1, 5, 64, 1152, 2305}) {
    std::vector<float> x = randoms(size_t(rows * cols), 81, 3), weight = randoms(size_t(cols), 82),
                       bias = randoms(size_t(cols), 83);
    const std::vector<float> start = randoms(size_t(rows * cols), 84);
    std::vector<double> rms, added, layer;
    for (int64_t r = 0; r < rows; ++r) {
      const float* row = x.data() + r * cols;
      double square = 0, mean = 0, variance = 0;
      for (int64_t c = 0; c < cols; ++c) square += double(row[c]) * row[c], mean += row[c];
      mean /= double(cols);
      for (int64_t c = 0; c < cols; ++c) variance += (row[c] - mean) * (row[c] - mean);
      for (int64_t c = 0; c < cols; ++c) {
        rms.push_back(row[c] / std::sqrt(square / double(cols) + 1e-6) * weight[size_t(c)]);
        added.push_back(start[size_t(r * cols + c)] + rms.back());
        layer.push_back((row[c] - mean) / std::sqrt(variance / double(cols) + 1e-6) * weight[size_t(c)] +
                        bias[size_t(c)]);
      }
    }
    onEveryDevice([&](Device& device, const std::string&) {
      const Floats in(device, x, rows, cols), factors(device, weight, 1, cols), offsets(device, bias, 1, cols);
      const Floats one(device, rows, cols), two(device, start, rows, cols), three(device, x, rows, cols),
          four(device, rows, cols);
      device.submit([&] {
        device.rmsNorm(one, in, factors, 1e-6f);
        device.rmsNorm(two, in, factors, 1e-6f, true);
        device.rmsNorm(three, three, factors, 1e-6f);  // in place
        device.layerNorm(four, in, factors, offsets, 1e-6f);
      });
      std::vector<float> out = one.values();
      const std::vector<float> sum = two.values(), same = three.values(), normed = four.values();
      CHECK(relativeError(out, rms) < 1e-6);
      CHECK(relativeError(sum, added) < 1e-6);
      CHECK(same == out);
      if (cols > 1) CHECK(relativeError(normed, layer) < 1e-5);
      out.insert(out.end(), normed.begin(), normed.end());
      return out;
    });
  }
}

TEST(ops_rope_rotates_halves_by_the_position) {
  const int64_t headDim = 40, heads = 3;
  const std::vector<int32_t> positions = {0, 1, 77, 4200, 8191};
  const std::vector<float> start = randoms(positions.size() * size_t(heads * headDim), 91);
  std::vector<double> want(start.begin(), start.end());
  for (size_t r = 0; r < positions.size(); ++r)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < headDim / 2; ++i) {
        // the reference takes frequency and angle in float32
        const float angle = float(positions[r]) * float(1 / std::pow(10000.0, 2.0 * double(i) / double(headDim)));
        double* x = want.data() + (int64_t(r) * heads + h) * headDim;
        const double a = x[i], b = x[i + headDim / 2];
        x[i] = a * std::cos(double(angle)) - b * std::sin(double(angle));
        x[i + headDim / 2] = b * std::cos(double(angle)) + a * std::sin(double(angle));
      }
  onEveryDevice([&](Device& device, const std::string&) {
    const int64_t rows = int64_t(positions.size());
    const Floats x(device, start, rows, heads * headDim);
    device.rope(x, Numbers(device, positions, rows, 1), headDim, 10000);
    CHECK(relativeError(x.values(), want) < 2e-7);
    return x.values();
  });
}

TEST(ops_embed_scales_rows_of_any_type) {
  for (DType type : kWeightTypes) {
    const int64_t cols = 512;
    const Matrix table(type, 9, cols, 101);
    const std::vector<int32_t> ids = {3, 0, 8, 3};
    std::vector<double> want;
    for (int32_t id : ids)
      for (int64_t c = 0; c < cols; ++c) want.push_back(double(table.values[size_t(id * cols + c)]) * 48);
    onEveryDevice([&](Device& device, const std::string&) {
      const int64_t rows = int64_t(ids.size());
      const Matrix::Placed placed = table.on(device);
      const Floats out(device, rows, cols);
      device.embed(out, placed.linear.weight, Numbers(device, ids, rows, 1), 48);
      CHECK(relativeError(out.values(), want) < 1e-6);
      return out.values();
    });
  }
}

TEST(ops_add_repeats_rows_and_softcap_bounds) {
  const std::vector<float> start = randoms(6 * 37, 111, 40), y = randoms(2 * 37, 112);
  std::vector<double> sums, capped;
  for (size_t i = 0; i < start.size(); ++i) {
    sums.push_back(double(start[i]) + y[i % (2 * 37)]);
    capped.push_back(30 * std::tanh(start[i] / 30.0));
  }
  onEveryDevice([&](Device& device, const std::string&) {
    const Floats first(device, start, 6, 37), second(device, start, 6, 37);
    device.add(first, Floats(device, y, 2, 37));
    device.softcap(second, 30);
    std::vector<float> x = first.values();
    const std::vector<float> z = second.values();
    CHECK(relativeError(x, sums) < 1e-7);
    CHECK(relativeError(z, capped) < 5e-7);
    x.insert(x.end(), z.begin(), z.end());
    return x;
  });
}

TEST(ops_gelu_gates_or_stands_alone) {
  const std::vector<float> gate = randoms(5 * 33, 131, 2), up = randoms(5 * 33, 132);
  std::vector<double> gated, alone;
  for (size_t i = 0; i < gate.size(); ++i) {
    alone.push_back(geluTanh(gate[i]));
    gated.push_back(alone.back() * up[i]);
  }
  onEveryDevice([&](Device& device, const std::string&) {
    const Floats a(device, gate, 5, 33), b(device, gate, 5, 33);
    device.gelu(a);
    device.gelu(b, Floats(device, up, 5, 33));
    CHECK(relativeError(a.values(), alone) < 1e-6);
    CHECK(relativeError(b.values(), gated) < 1e-6);
    return b.values();
  });
}

TEST(ops_largest_values_come_in_order_and_equals_by_their_place) {
  const int64_t cols = 1000, k = 7;
  const float none = -INFINITY, nan = NAN;
  std::vector<float> x = randoms(size_t(4 * cols), 141);
  for (float& v : x) v = std::round(v * 4) / 4;                     // many equals
  for (int64_t c = 0; c < cols; ++c) x[size_t(cols + c)] = c % 2 ? nan : none;
  x[size_t(cols + 900)] = -1e30f, x[size_t(cols + 3)] = nan;        // one value alone
  for (int64_t c = 0; c < cols; ++c) x[size_t(2 * cols + c)] = nan;   // none
  x[size_t(3 * cols + 999)] = 50, x[size_t(3 * cols + 256)] = 50, x[size_t(3 * cols + 5)] = INFINITY;
  onEveryDevice([&](Device& device, const std::string&) {
    const Floats in(device, x, 4, cols), values(device, 4, k);
    const Numbers best(device, 4, 1), ids(device, 4, k);
    device.submit([&] {
      device.argmax(best, in);
      device.topK(ids, values, in);
    });
    const std::vector<int32_t> one = best.values(), many = ids.values();
    const std::vector<float> largest = values.values();
    for (int64_t r = 0; r < 4; ++r) {
      std::vector<int32_t> order;
      for (int32_t c = 0; c < cols; ++c)
        if (x[size_t(r * cols + c)] > none) order.push_back(c);
      std::stable_sort(order.begin(), order.end(),
                       [&](int32_t a, int32_t b) { return x[size_t(r * cols + a)] > x[size_t(r * cols + b)]; });
      const bool spoiled = r == 1 || r == 2;
      CHECK_EQUAL(one[size_t(r)], spoiled ? kHoldsNan : order[0]);
      for (size_t i = 0; i < size_t(k); ++i) {
        CHECK_EQUAL(many[size_t(r * k) + i], spoiled && i == 0 ? kHoldsNan : i < order.size() ? order[i] : -1);
        CHECK_EQUAL(largest[size_t(r * k) + i], i < order.size() ? x[size_t(r * cols + order[i])] : none);
      }
    }
    return largest;
  });
}

TEST(ops_refuse_shapes_that_do_not_fit) {
  onEveryDevice([](Device& device, const std::string&) {
    const Matrix::Placed w = Matrix(DType::q8_0, 4, 64, 121).on(device);
    const Floats x(device, 2, 64), narrow(device, 4, 32), out(device, 2, 4), few(device, 2, 3);
    const Numbers ids(device, 3, 1);
    const MatmulJob wrong{few, &w.linear}, good{out, &w.linear}, gated{out, &w.linear, Epilogue::geglu};
    CHECK_FAILS(device.matmul(x, {&wrong, 1}), Code::internal, "another shape");
    CHECK_FAILS(device.matmul(narrow, {&good, 1}), Code::internal, "not as wide");
    CHECK_FAILS(device.matmul(x, {&gated, 1}), Code::internal, "op of its own");
    CHECK_FAILS(device.embed(out, w.linear.weight, ids, 1), Code::internal, "one number a row");
    CHECK_FAILS(device.rmsNorm(x, x, narrow, 0), Code::internal, "do not fit the columns");
    CHECK_FAILS(device.topK(ids, Floats(device, 3, 1), x), Code::internal, "shapes do not fit");
    CHECK_FAILS(device.topK(Numbers(device, 2, 300), Floats(device, 2, 300), x), Code::internal, "out of range");
    Linear nowhere;
    nowhere.weight = {nullptr, 0, DType::f32, 4, 64};
    const MatmulJob unplaced{out, &nowhere};
    CHECK_FAILS(device.matmul(x, {&unplaced, 1}), Code::internal, "not been placed");
    return std::vector<float>();
  });
}

TEST(ops_of_a_submission_that_fails_are_forgotten) {
  FarDevice device(kKernelsScalar, 1);
  const Floats x(device, {1, 2, 3, 4}, 1, 4), y(device, {1, 1, 1, 1}, 1, 4);
  try {
    device.submit([&] {
      device.add(x, y);
      fail(Code::aborted, "stop");
    });
    CHECK(false);
  } catch (const Error&) {}
  CHECK((x.values() == std::vector<float>{1, 2, 3, 4}));
  device.submit([&] { device.submit([&] { device.add(x, y); }); });
  CHECK((x.values() == std::vector<float>{2, 3, 4, 5}));
  CHECK_EQUAL(device.gathered, int64_t(2));
}

}  // namespace pg
