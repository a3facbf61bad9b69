// The ops of CpuDevice against plain double loops, on every instruction set that runs here, and for 1 to 3 threads,
// which must agree to the last bit.
#include <array>
#include <cstring>
#include <memory>
#include <random>

#include "base/half.h"
#include "check.h"
#include "cpu/cpu_device.h"
#include "cpu/cpu_info.h"
#include "format/quantize.h"

namespace pg {
namespace {

std::vector<float> randoms(size_t n, unsigned seed, float scale = 1) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> x(n);
  for (float& v : x) v = normal(generator);
  return x;
}

View view(std::vector<float>& x, int64_t rows, int64_t cols) {
  return {reinterpret_cast<uint8_t*>(x.data()), DType::f32, rows, cols};
}

// A weight matrix of any type, with the f32 values it stands for.
struct Matrix {
  std::vector<uint8_t> bytes;
  std::vector<float> values;
  Linear linear;

  Matrix(DType type, int64_t rows, int64_t cols, unsigned seed, const float* bias = nullptr) {
    values = randoms(size_t(rows * cols), seed, 0.3f);
    bytes.resize(bytesFor(type, cols) * size_t(rows));
    for (int64_t r = 0; r < rows; ++r) {
      uint8_t* row = bytes.data() + size_t(r) * bytesFor(type, cols);
      quantizeRow(type, values.data() + r * cols, row, cols);
      dequantizeRow(type, row, values.data() + r * cols, cols);
    }
    linear.weight = {bytes.data(), type, rows, cols};
    linear.bias = bias;
  }
};

double geluTanh(double x) { return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))); }

// |a - b| / |b| over all values
double relativeError(const std::vector<float>& a, const std::vector<double>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(difference / (size + 1e-30));
}

// Runs body(device, isa) on every instruction set and thread count; the floats it returns must not depend on threads.
template <class Body>
void onEveryDevice(const Body& body) {
  for (const std::string& isa : supportedIsas()) {
    std::vector<float> first;
    for (int threads = 1; threads <= 3; ++threads) {
      CpuDevice device(*kernelsFor(isa), threads);
      const std::vector<float> out = body(device, isa);
      if (threads == 1) first = out;
      CHECK_EQUAL(out.size(), first.size());
      if (std::memcmp(out.data(), first.data(), out.size() * sizeof(float)) != 0)
        throw test::Failure{isa, "differs with " + std::to_string(threads) + " threads"};
    }
  }
}

// Relative error a product may have: quantized weights meet 8-bit activations on all tables but the scalar one.
double matmulTolerance(const std::string& isa, DType type) {
  return isa == "scalar" || !dtypeInfo(type)->quantized ? 2e-6 : 0.0125;
}

// The same for attention: 16-bit integers where they are allowed.
double attentionTolerance(const std::string& isa, Precision precision) {
  return kernelsFor(isa)->scores16 && precision == Precision::fast ? 6e-4 : 3e-6;
}

const DType kWeightTypes[] = {DType::f32,  DType::f16,  DType::bf16, DType::q8_0, DType::q4_0, DType::q4_1,
                              DType::q5_0, DType::q4_k, DType::q5_k, DType::q6_k, DType::q3_k, DType::iq4_nl};

}  // namespace

TEST(ops_matmul_matches_double_loops_for_every_type_and_row_count) {
  const Epilogue epilogues[] = {Epilogue::store, Epilogue::gelu, Epilogue::add};
  for (DType type : kWeightTypes) {
    const int64_t block = dtypeInfo(type)->block;
    for (int64_t m : {1, 2, 5, 8, 9, 13, 37}) {
      const int64_t k = block == 1 ? 75 : block == 32 ? 352 : 768, n = 83;
      const std::vector<float> bias = randoms(size_t(n), 7);
      const Matrix a(type, n, k, 1, bias.data()), b(type, 33, k, 2);
      std::vector<float> x = randoms(size_t(m * k), 3);
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
        onEveryDevice([&](CpuDevice& device, const std::string& isa) {
          std::vector<float> out = start;
          out.resize(size_t(m * n + m * 33));
          const MatmulJob jobs[] = {{view(out, m, n), &a.linear, epilogue},
                                    {{reinterpret_cast<uint8_t*>(out.data() + m * n), DType::f32, m, 33}, &b.linear}};
          device.matmul(view(x, m, k), jobs);
          const double error = relativeError(out, want);
          if (!(error < matmulTolerance(isa, type)))
            throw test::Failure{isa + " " + dtypeName(type) + " m " + std::to_string(m),
                                "relative error " + std::to_string(error)};
          return out;
        });
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
      const auto product = [&](int64_t first, int64_t m) {
        std::vector<float> out(size_t(m * n));
        const MatmulJob job{view(out, m, n), &w.linear};
        device.matmul(view(x, 40, k).slice(first, m), {&job, 1});
        return out;
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
    onEveryDevice([&](CpuDevice& device, const std::string& isa) {
      std::vector<float> out(size_t(m * n));
      const MatmulJob job{view(out, m, n), &w.linear};
      device.matmul(view(x, m, k), {&job, 1});
      CHECK(relativeError(out, want) < matmulTolerance(isa, type));
      return out;
    });
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
      onEveryDevice([&](CpuDevice& device, const std::string& isa) {
        std::vector<float> out(size_t(rows * n));
        const MatmulJob job{view(out, rows, n), &w.linear};
        device.matmul(view(x, rows, k), {&job, 1});
        const double error = relativeError(out, want);
        if (!(error < (rows == 1 ? 0.02 : 0.03)))
          throw test::Failure{isa + " " + dtypeName(type), "relative error " + std::to_string(error)};
        return out;
      });
    }
}

TEST(ops_packed_weights_give_the_same_bits) {
  for (DType type : {DType::q8_0, DType::q4_0, DType::q4_k, DType::f32}) {
    const int64_t k = 1024, n = 189, m = 21;
    const Matrix a(type, n, k, 11);
    const std::vector<float> x = randoms(size_t(m * k), 12);
    onEveryDevice([&](CpuDevice& device, const std::string&) {
      Linear linear = a.linear;
      std::vector<float> plain(size_t(m * n)), packed(size_t(m * n)), in = x;
      const MatmulJob job{view(plain, m, n), &linear}, again{view(packed, m, n), &linear};
      device.matmul(view(in, m, k), {&job, 1});
      Linear* const weights[] = {&linear};
      const Buffer buffer = device.pack(weights);
      CHECK_EQUAL(linear.packed == nullptr, buffer.data() == nullptr);
      device.matmul(view(in, m, k), {&again, 1});
      CHECK(std::memcmp(plain.data(), packed.data(), plain.size() * sizeof(float)) == 0);
      return packed;
    });
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
      onEveryDevice([&](CpuDevice& device, const std::string& isa) {
        std::vector<float> out(size_t(m * n));
        device.geglu(view(out, m, n), view(x, m, k), gate.linear, up.linear);
        CHECK(relativeError(out, want) < 2 * matmulTolerance(isa, type));
        return out;
      });
    }
}

namespace {

// A cache of one layer with random content; `values` keeps what the cache rounds to: [k, v][token][kvHead][headDim].
struct Cache {
  KvLayout layout;
  std::vector<std::vector<uint8_t>> pages;
  std::vector<uint8_t*> pointers;
  std::vector<float> keys, values;
  KvView view;

  Cache(CpuDevice& device, DType type, int64_t tokens, int64_t kvHeads, int64_t headDim) {
    layout = {.layers = 2, .kvHeads = kvHeads, .headDim = headDim, .type = type};
    for (int64_t t = 0; t < tokens; t += kPageTokens) pages.emplace_back(layout.pageBytes(), uint8_t(0xff));
    for (auto& page : pages) pointers.push_back(page.data());
    view = {&layout, pointers.data()};
    keys = randoms(size_t(tokens * kvHeads * headDim), 51);
    values = randoms(size_t(tokens * kvHeads * headDim), 52);
    // in two calls, the second at an odd position
    const int64_t width = kvHeads * headDim, cut = tokens / 3;
    const View k = pg::view(keys, tokens, width), v = pg::view(values, tokens, width);
    if (cut > 0) device.storeKv(view, 1, k.slice(0, cut), v.slice(0, cut), 0);
    device.storeKv(view, 1, k.slice(cut, tokens - cut), v.slice(cut, tokens - cut), cut);
    for (std::vector<float>* x : {&keys, &values})
      for (size_t i = 0; i < x->size(); i += size_t(headDim)) {
        std::vector<uint8_t> row(layout.rowBytes());
        quantizeRow(type, x->data() + i, row.data(), headDim);
        dequantizeRow(type, row.data(), x->data() + i, headDim);
      }
  }
};

// One query row and head in double.
std::vector<double> attend(const float* q, const std::vector<float>& keys, const std::vector<float>& values,
                           int64_t first, int64_t end, int64_t stride, int64_t offset, int64_t headDim, double scale,
                           double softcap) {
  std::vector<double> scores, out(static_cast<size_t>(headDim));
  double top = -INFINITY, sum = 0;
  for (int64_t t = first; t < end; ++t) {
    double s = 0;
    for (int64_t i = 0; i < headDim; ++i) s += double(q[i]) * keys[size_t(t * stride + offset + i)];
    s *= scale;
    if (softcap > 0) s = softcap * std::tanh(s / softcap);
    scores.push_back(s);
    top = std::max(top, s);
  }
  for (double& s : scores) sum += s = std::exp(s - top);
  for (int64_t t = first; t < end; ++t)
    for (int64_t i = 0; i < headDim; ++i)
      out[size_t(i)] += scores[size_t(t - first)] / sum * values[size_t(t * stride + offset + i)];
  return out;
}

}  // namespace

TEST(ops_paged_attention_matches_double_loops_for_every_mask) {
  struct Case {
    DType type;
    int64_t position, rows, kvHeads, group, headDim;
    AttentionMask mask;
    float softcap;
  };
  const Case cases[] = {
      {DType::f32, 0, 70, 1, 1, 32, {.prefix = 70}, 0},                  // all see all
      {DType::f16, 0, 75, 2, 2, 64, {.prefix = 40}, 50},                 // prefix, then causal
      {DType::f16, 0, 67, 1, 8, 32, {}, 0},                              // causal
      {DType::q8_0, 0, 150, 2, 1, 64, {.prefix = 20, .window = 30}, 5},  // window over the suffix
      {DType::f32, 0, 140, 1, 2, 8, {.prefix = 100, .window = 17, .windowInPrefix = true}, 0},
      {DType::f16, 137, 1, 2, 4, 64, {.prefix = 60}, 50},                // one step of decoding
      {DType::q8_0, 63, 1, 1, 8, 32, {.prefix = 5}, 0},                  // last token of a page
      {DType::f16, 1300, 1, 1, 8, 32, {.prefix = 1000}, 0},              // a long cache
      {DType::f16, 1300, 1, 2, 2, 32, {.prefix = 1000, .window = 700}, 0},
      {DType::f32, 128, 5, 2, 3, 24, {.prefix = 64}, 2},                 // a few rows behind a cache
      {DType::f16, 0, 33, 4, 2, 256, {.prefix = 33}, 50},                // Gemma 2's head size
  };
  for (const Case& c : cases) {
    const int64_t tokens = c.position + c.rows, width = c.kvHeads * c.group * c.headDim;
    std::vector<float> q = randoms(size_t(c.rows * width), 53);
    const float scale = 0.6f / std::sqrt(float(c.headDim)) * 2;
    CpuDevice reference(kKernelsScalar, 1);
    const Cache cache(reference, c.type, tokens, c.kvHeads, c.headDim);
    std::vector<double> want;
    for (int64_t r = 0; r < c.rows; ++r)
      for (int64_t h = 0; h < c.kvHeads * c.group; ++h) {
        const auto row = attend(q.data() + r * width + h * c.headDim, cache.keys, cache.values,
                                c.mask.first(c.position + r), std::min(tokens, c.mask.end(c.position + r)),
                                c.kvHeads * c.headDim, h / c.group * c.headDim, c.headDim, scale, c.softcap);
        want.insert(want.end(), row.begin(), row.end());
      }
    onEveryDevice([&](CpuDevice& device, const std::string& isa) {
      Cache own(device, c.type, tokens, c.kvHeads, c.headDim);
      std::vector<float> out(q.size());
      // two sequences in one call: the second starts one row later
      std::vector<float> second(q.size());
      const AttentionJob jobs[] = {{view(out, c.rows, width), view(q, c.rows, width), own.view, c.position, c.mask},
                                   {view(second, c.rows, width).slice(c.rows - 1, 1),
                                    view(q, c.rows, width).slice(c.rows - 1, 1), own.view, tokens - 1, c.mask}};
      for (Precision precision : {Precision::exact, Precision::fast}) {
        device.attention(jobs, 1, scale, c.softcap, precision);
        const double error = relativeError(out, want);
        // one row alone is decoding, in f32
        const double tolerance = c.rows == 1 ? 3e-6 : attentionTolerance(isa, precision);
        if (!(error < tolerance))
          throw test::Failure{isa, "relative error " + std::to_string(error) + " at " + std::to_string(&c - cases)};
        const std::vector<double> last(want.end() - width, want.end());
        CHECK(relativeError({second.end() - width, second.end()}, last) < 3e-6);
      }
      return out;
    });
  }
}

TEST(ops_paged_attention_of_rows_does_not_depend_on_company) {
  const int64_t tokens = 200, headDim = 64, width = 4 * headDim;
  std::vector<float> q = randoms(size_t(tokens * width), 61);
  const AttentionMask mask{.prefix = 130};
  for (const std::string& isa : supportedIsas()) {
    CpuDevice device(*kernelsFor(isa), 2);
    Cache cache(device, DType::f16, tokens, 2, headDim);
    std::vector<float> all(q.size()), some(q.size());
    AttentionJob job{view(all, tokens, width), view(q, tokens, width), cache.view, 0, mask};
    device.attention({&job, 1}, 1, 0.125f, 50, Precision::fast);
    job = {view(some, tokens, width).slice(60, 90), view(q, tokens, width).slice(60, 90), cache.view, 60, mask};
    device.attention({&job, 1}, 1, 0.125f, 50, Precision::fast);
    CHECK(std::memcmp(all.data() + 60 * width, some.data() + 60 * width, size_t(90 * width) * 4) == 0);
    // one row of each of two sequences gives what it gives alone
    std::vector<float> alone(static_cast<size_t>(width)), pair(size_t(2 * width));
    job = {view(alone, 1, width), view(q, tokens, width).slice(150, 1), cache.view, 150, mask};
    device.attention({&job, 1}, 1, 0.125f, 50, Precision::fast);
    const AttentionJob jobs[] = {
        {view(pair, 2, width).slice(0, 1), view(q, tokens, width).slice(170, 1), cache.view, 170, mask},
        {view(pair, 2, width).slice(1, 1), view(q, tokens, width).slice(150, 1), cache.view, 150, mask}};
    device.attention(jobs, 1, 0.125f, 50, Precision::fast);
    CHECK(std::memcmp(pair.data() + width, alone.data(), size_t(width) * 4) == 0);
  }
}

TEST(ops_dense_attention_matches_double_loops) {
  for (auto [tokens, heads, headDim] :
       {std::array<int64_t, 3>{256, 2, 72}, {33, 3, 16}, {1, 1, 72}, {130, 1, 72}, {16, 2, 20}}) {
    const int64_t width = heads * headDim;
    // q, k, v as columns of one matrix, as a fused projection leaves them
    std::vector<float> qkv = randoms(size_t(tokens * 3 * width), 71), keys, values;
    const View all = view(qkv, tokens, 3 * width);
    for (int64_t t = 0; t < tokens; ++t) {
      const float* row = all.row<float>(t);
      keys.insert(keys.end(), row + width, row + 2 * width);
      values.insert(values.end(), row + 2 * width, row + 3 * width);
    }
    std::vector<double> want;
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t h = 0; h < heads; ++h) {
        const auto row =
            attend(all.row<float>(t) + h * headDim, keys, values, 0, tokens, width, h * headDim, headDim, 0.3, 0);
        want.insert(want.end(), row.begin(), row.end());
      }
    onEveryDevice([&](CpuDevice& device, const std::string& isa) {
      std::vector<float> out(size_t(tokens * width));
      for (Precision precision : {Precision::exact, Precision::fast}) {
        device.denseAttention(view(out, tokens, width), all.columns(0, width), all.columns(width, width),
                              all.columns(2 * width, width), heads, 0.3f, precision);
        CHECK(relativeError(out, want) < attentionTolerance(isa, precision));
      }
      return out;
    });
  }
}

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
    onEveryDevice([&](CpuDevice& device, const std::string&) {
      std::vector<float> out(x.size()), sum = start, same = x, normed(x.size());
      device.rmsNorm(view(out, rows, cols), view(x, rows, cols), weight.data(), 1e-6f, false);
      device.rmsNorm(view(sum, rows, cols), view(x, rows, cols), weight.data(), 1e-6f, true);
      device.rmsNorm(view(same, rows, cols), view(same, rows, cols), weight.data(), 1e-6f, false);  // in place
      device.layerNorm(view(normed, rows, cols), view(x, rows, cols), weight.data(), bias.data(), 1e-6f);
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
  const std::vector<int64_t> positions = {0, 1, 77, 4200, 8191};
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
  onEveryDevice([&](CpuDevice& device, const std::string&) {
    std::vector<float> x = start;
    device.rope(view(x, int64_t(positions.size()), heads * headDim), positions, headDim, 10000);
    CHECK(relativeError(x, want) < 2e-7);
    return x;
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
    onEveryDevice([&](CpuDevice& device, const std::string&) {
      std::vector<float> out(ids.size() * size_t(cols));
      device.embed(view(out, int64_t(ids.size()), cols), table.linear.weight, ids, 48);
      CHECK(relativeError(out, want) < 1e-6);
      return out;
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
  onEveryDevice([&](CpuDevice& device, const std::string&) {
    std::vector<float> x = start, repeated = y, z = start;
    device.add(view(x, 6, 37), view(repeated, 2, 37));
    device.softcap(view(z, 6, 37), 30);
    CHECK(relativeError(x, sums) < 1e-7);
    CHECK(relativeError(z, capped) < 5e-7);
    x.insert(x.end(), z.begin(), z.end());
    return x;
  });
}

TEST(ops_refuse_shapes_that_do_not_fit) {
  CpuDevice device(kKernelsScalar, 1);
  const Matrix w(DType::q8_0, 4, 64, 121);
  std::vector<float> x(2 * 64), out(2 * 4);
  const MatmulJob wrong{view(out, 2, 3), &w.linear}, good{view(out, 2, 4), &w.linear};
  CHECK_FAILS(device.matmul(view(x, 2, 64), {&wrong, 1}), Code::internal, "another shape");
  CHECK_FAILS(device.matmul(view(x, 4, 32), {&good, 1}), Code::internal, "not as wide");
}

}  // namespace pg
