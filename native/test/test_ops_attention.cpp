// Attention of every device against plain double loops; see test_ops.cpp.
#include <array>

#include "ops_fixture.h"
#include "serve/load/check_device.h"

namespace pg {
namespace {

using namespace test;

// A cache of two layers with random content; `keys`, `values` keep what it rounds to: [token][kvHead][headDim].
struct Cache {
  KvLayout layout;
  std::vector<Buffer> pages;
  std::unique_ptr<Tensor<uint64_t>> table;
  std::vector<float> keys, values;
  KvView view;

  Cache(Device& device, DType type, int64_t tokens, int64_t kvHeads, int64_t headDim) {
    layout = {.layers = 2, .kvHeads = kvHeads, .headDim = headDim, .type = type};
    std::vector<uint64_t> addresses;
    const std::vector<uint8_t> junk(layout.pageBytes(), 0xff);
    for (int64_t t = 0; t < tokens; t += kPageTokens) {
      const Buffer& page = pages.emplace_back(device.allocate(layout.pageBytes()));
      device.upload(page.view(DType::i8, 1, int64_t(junk.size())), junk.data());
      addresses.push_back(page.memory()->address);
    }
    table = std::make_unique<Tensor<uint64_t>>(device, addresses, int64_t(addresses.size()), 1);
    view = {&layout, *table, tokens};
    keys = randoms(size_t(tokens * kvHeads * headDim), 51);
    values = randoms(size_t(tokens * kvHeads * headDim), 52);
    // in two calls, the second at an odd position
    const int64_t width = kvHeads * headDim, cut = tokens / 3;
    const Floats k(device, keys, tokens, width), v(device, values, tokens, width);
    const Numbers positions = positionsFrom(device, 0, tokens);
    for (const auto& [begin, count] : {std::pair{int64_t(0), cut}, {cut, tokens - cut}})
      device.storeKv(view, 1, k.slice(begin, count), v.slice(begin, count), positions.slice(begin, count));
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
    // of those with many rows, one with a window and one with wide heads
    const bool few = c.rows * c.kvHeads * c.group < 200 || c.type == DType::q8_0 || c.headDim == 256;
    const OnGpu onGpu = few ? OnGpu::yes : OnGpu::no;
    onEveryDevice(
        [&](Device& device, const std::string& isa) {
          const Cache own(device, c.type, tokens, c.kvHeads, c.headDim);
      // two sequences in one call: the second starts one row later
          const Floats queries(device, q, c.rows, width), first(device, c.rows, width), second(device, 1, width);
          const Numbers positions = positionsFrom(device, c.position, c.rows);
          const AttentionJob jobs[] = {
              {first, queries, own.view, positions, c.mask},
              {second, queries.slice(c.rows - 1, 1), own.view, positions.slice(c.rows - 1, 1), c.mask}};
          std::vector<float> out;
          for (Precision precision : {Precision::exact, Precision::fast}) {
            device.submit([&] { device.attention(jobs, {1, scale, c.softcap, precision}); });
            out = first.values();
            const double error = relativeError(out, want);
        // one row alone is decoding, in f32
            const double tolerance = c.rows == 1 ? 3e-6 : attentionTolerance(isa, precision);
            if (!(error < tolerance))
              throw Failure{isa, "relative error " + std::to_string(error) + " at " + std::to_string(&c - cases)};
            const std::vector<double> last(want.end() - width, want.end());
            CHECK(relativeError(second.values(), last) < 3e-6);
          }
          return out;
        },
        onGpu);
  }
}

// What was computed before on a device must not change how it attends: a device's self-check has weights of all types.
TEST(ops_attention_is_as_precise_as_its_model_asks_whatever_was_placed) {
  const int64_t rows = 70, headDim = 64;
  const std::vector<float> q = randoms(size_t(rows * headDim), 53);
  CpuDevice reference(kKernelsScalar, 1);
  const Cache cache(reference, DType::f16, rows, 1, headDim);
  std::vector<double> want;
  for (int64_t r = 0; r < rows; ++r) {
    const auto row = attend(q.data() + r * headDim, cache.keys, cache.values, 0, rows, headDim, 0, headDim, 0.2, 0);
    want.insert(want.end(), row.begin(), row.end());
  }
  onEveryDevice([&](Device& device, const std::string& isa) {
    const Matrix::Placed placed = Matrix(DType::bf16, 64, 64, 1).on(device);
    CHECK_EQUAL(wrongOp(device), std::string());
    const Cache own(device, DType::f16, rows, 1, headDim);
    const Floats queries(device, q, rows, headDim), out(device, rows, headDim);
    const Numbers positions = positionsFrom(device, 0, rows);
    const AttentionJob job{out, queries, own.view, positions, {.prefix = rows}};
    const auto error = [&](Precision precision) {
      device.attention({&job, 1}, {1, 0.2f, 0, precision});
      return relativeError(out.values(), want);
    };
    CHECK(error(Precision::rounded) < 1e-3);
    CHECK(error(Precision::exact) < 3e-6);
    // CPUs compute exactly with weights of bf16, GPUs on tensor cores
    CHECK_EQUAL(error(Precision::rounded) > 1e-5, isGpu(isa));
    return out.values();
  });
  const auto of = [](DType type) {
    Linear linear;
    linear.weight.type = type;
    return linear.precision();
  };
  CHECK(of(DType::f32) == Precision::exact && of(DType::f16) == Precision::exact);
  CHECK(of(DType::bf16) == Precision::rounded && of(DType::q4_0) == Precision::fast);
}

TEST(ops_paged_attention_of_rows_does_not_depend_on_company) {
  const int64_t tokens = 200, headDim = 64, width = 4 * headDim;
  std::vector<float> q = randoms(size_t(tokens * width), 61);
  const AttentionMask mask{.prefix = 130};
  for (const std::string& isa : supportedIsas()) {
    CpuDevice device(*kernelsFor(isa), 2);
    const Cache cache(device, DType::f16, tokens, 2, headDim);
    const Floats queries(device, q, tokens, width);
    const Numbers positions = positionsFrom(device, 0, tokens);
    const auto attend = [&](std::vector<std::pair<int64_t, int64_t>> runs) {   // first row and count of each job
      std::vector<Floats> outs;
      std::vector<AttentionJob> jobs;
      for (const auto& [first, count] : runs) {
        outs.emplace_back(device, count, width);
        jobs.push_back({outs.back(), queries.slice(first, count), cache.view, positions.slice(first, count), mask});
      }
      device.attention(jobs, {1, 0.125f, 50, Precision::fast});
      return outs.back().values();
    };
    const std::vector<float> all = attend({{0, tokens}}), some = attend({{60, 90}});
    CHECK(std::memcmp(all.data() + 60 * width, some.data(), size_t(90 * width) * 4) == 0);
    // one row of each of two sequences gives what it gives alone
    CHECK(attend({{170, 1}, {150, 1}}) == attend({{150, 1}}));
  }
}

TEST(ops_dense_attention_matches_double_loops) {
  for (auto [tokens, heads, headDim] :
       {std::array<int64_t, 3>{256, 2, 72}, {33, 3, 16}, {1, 1, 72}, {130, 1, 72}, {16, 2, 20}}) {
    const int64_t width = heads * headDim;
    // q, k, v as columns of one matrix, as a fused projection leaves them
    const std::vector<float> qkv = randoms(size_t(tokens * 3 * width), 71);
    std::vector<float> keys, values;
    for (int64_t t = 0; t < tokens; ++t) {
      const float* row = qkv.data() + t * 3 * width;
      keys.insert(keys.end(), row + width, row + 2 * width);
      values.insert(values.end(), row + 2 * width, row + 3 * width);
    }
    std::vector<double> want;
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t h = 0; h < heads; ++h) {
        const auto row = attend(qkv.data() + t * 3 * width + h * headDim, keys, values, 0, tokens, width, h * headDim,
                                headDim, 0.3, 0);
        want.insert(want.end(), row.begin(), row.end());
      }
    onEveryDevice([&](Device& device, const std::string& isa) {
      const Floats all(device, qkv, tokens, 3 * width), y(device, tokens, width);
      std::vector<float> out;
      for (Precision precision : {Precision::exact, Precision::fast}) {
        device.denseAttention(y, all.columns(0, width), all.columns(width, width), all.columns(2 * width, width), heads,
                              0.3f, precision);
        out = y.values();
        CHECK(relativeError(out, want) < attentionTolerance(isa, precision));
      }
      return out;
    });
  }
}

TEST(ops_refuse_keys_and_values_that_the_cache_cannot_hold) {
  onEveryDevice([](Device& device, const std::string&) {
    for (const auto& [type, limit] : {std::pair{DType::f16, 65504.0f}, {DType::q8_0, 127 * 65504.0f}}) {
      Cache cache(device, type, 3, 1, 32);
      const Numbers positions = positionsFrom(device, 0, 1);
      std::vector<float> x(32, 1);
      x[5] = -limit;
      const Floats fits(device, x, 1, 32);
      x[5] = limit * 1.01f;
      const Floats large(device, x, 1, 32);
      device.storeKv(cache.view, 0, fits, fits, positions);
      CHECK_FAILS(device.storeKv(cache.view, 0, large, fits, positions), Code::modelInvalid, "kvCacheType: 'f32'");
      CHECK_FAILS(device.storeKv(cache.view, 0, fits, large, positions), Code::modelInvalid, "kvCacheType: 'f32'");
    }
    return std::vector<float>();
  });
}

}  // namespace pg
