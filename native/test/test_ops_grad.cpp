// The gradient ops of every device against finite differences of the forward ops' plain double loops, on every
// instruction set that runs here, for 1 to 3 threads and far away, which must agree to the last bit.
#include "ops_fixture.h"

namespace pg {
namespace {

using namespace test;

using Doubles = std::vector<double>;

Doubles wide(const std::vector<float>& x) { return {x.begin(), x.end()}; }

// The gradient of sum(weights * f(x)) by differences of fourth order.
template <class Function>
Doubles differences(const std::vector<float>& x, const std::vector<float>& weights, const Function& f) {
  Doubles at = wide(x), gradient(x.size());
  const auto value = [&](size_t i, double by) {
    const double before = at[i];
    at[i] += by;
    const Doubles y = f(at);
    at[i] = before;
    double sum = 0;
    for (size_t j = 0; j < y.size(); ++j) sum += y[j] * double(weights[j]);
    return sum;
  };
  constexpr double kStep = 1e-3;
  for (size_t i = 0; i < x.size(); ++i)
    gradient[i] =
        (8 * (value(i, kStep) - value(i, -kStep)) - (value(i, 2 * kStep) - value(i, -2 * kStep))) / (12 * kStep);
  return gradient;
}

void checkGradient(const std::string& isa, const char* op, const std::vector<float>& got, const Doubles& want,
                   double tolerance = 2e-5) {
  const double error = relativeError(got, want);
  if (!(error < tolerance)) throw Failure{isa + " " + op, "relative error " + std::to_string(error)};
}

Doubles rmsNormed(const Doubles& x, const std::vector<float>& weight, double eps) {
  const size_t n = weight.size();
  Doubles y(x.size());
  for (size_t row = 0; row < x.size(); row += n) {
    double squares = 0;
    for (size_t i = 0; i < n; ++i) squares += x[row + i] * x[row + i];
    const double factor = 1 / std::sqrt(squares / double(n) + eps);
    for (size_t i = 0; i < n; ++i) y[row + i] = x[row + i] * factor * double(weight[i]);
  }
  return y;
}

Doubles layerNormed(const Doubles& x, const std::vector<float>& weight, double eps) {
  const size_t n = weight.size();
  Doubles y(x.size());
  for (size_t row = 0; row < x.size(); row += n) {
    double mean = 0, squares = 0;
    for (size_t i = 0; i < n; ++i) mean += x[row + i] / double(n);
    for (size_t i = 0; i < n; ++i) squares += (x[row + i] - mean) * (x[row + i] - mean);
    const double factor = 1 / std::sqrt(squares / double(n) + eps);
    for (size_t i = 0; i < n; ++i) y[row + i] = (x[row + i] - mean) * factor * double(weight[i]);
  }
  return y;
}

// q, k, v of one sequence behind one another
Doubles attended(const Doubles& x, const AttentionGrad& job, int64_t n, int64_t d) {
  const int64_t queries = job.heads * d, keys = job.kvHeads * d;
  const double *q = x.data(), *k = q + n * queries, *v = k + n * keys;
  Doubles out(size_t(n * queries));
  for (int64_t h = 0; h < job.heads; ++h)
    for (int64_t i = 0; i < n; ++i) {
      const int64_t kv = h / (job.heads / job.kvHeads) * d;
      Doubles p;
      double sum = 0;
      for (int64_t j = job.mask.first(i); j < job.mask.end(i); ++j) {
        double score = 0;
        for (int64_t c = 0; c < d; ++c) score += q[i * queries + h * d + c] * k[j * keys + kv + c];
        score *= double(job.scale);
        if (job.softcap > 0) score = double(job.softcap) * std::tanh(score / double(job.softcap));
        p.push_back(std::exp(score));
        sum += p.back();
      }
      for (int64_t j = job.mask.first(i); j < job.mask.end(i); ++j)
        for (int64_t c = 0; c < d; ++c)
          out[size_t(i * queries + h * d + c)] += p[size_t(j - job.mask.first(i))] / sum * v[j * keys + kv + c];
    }
  return out;
}

}  // namespace

TEST(grad_of_a_product_matches_double_loops_for_every_type) {
  for (DType type : kWeightTypes) {
    const int64_t block = dtypeInfo(type)->block, in = block == 1 ? 75 : block == 32 ? 352 : 768;
    for (const auto& [m, out] : {std::pair<int64_t, int64_t>{1, 83}, {7, 300}, {37, 5}, {20, 1000}}) {
      const Matrix w(type, out, in, 1);
      const std::vector<float> dy = randoms(size_t(m * out), 2), start = randoms(size_t(m * in), 3);
      Doubles want = wide(start);
      for (int64_t i = 0; i < m; ++i)
        for (int64_t o = 0; o < out; ++o)
          for (int64_t c = 0; c < in; ++c)
            want[size_t(i * in + c)] += double(dy[size_t(i * out + o)]) * double(w.values[size_t(o * in + c)]);
      onEveryDevice(
          [&](Device& device, const std::string& isa) {
            const Matrix::Placed placed = w.on(device);
            const Floats dx(device, start, m, in);
            device.matmulGrad(dx, Floats(device, dy, m, out), placed.linear, true);
            checkGradient(isa, dtypeName(type), dx.values(), want, m < 16 ? 2e-5 : matmulTolerance(isa, type));
            return dx.values();
          },
          m == 7 ? OnGpu::yes : OnGpu::no);
    }
  }
}

TEST(grad_of_a_weight_is_the_outer_product_added) {
  for (const auto& [m, rows, cols] : {std::tuple<int64_t, int64_t, int64_t>{1, 4, 75}, {9, 70, 3}, {600, 16, 33}}) {
    const std::vector<float> y = randoms(size_t(m * rows), 1), x = randoms(size_t(m * cols), 2);
    const std::vector<float> start = randoms(size_t(rows * cols), 3);
    Doubles want = wide(start);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < cols; ++c)
          want[size_t(r * cols + c)] += 0.5 * double(y[size_t(i * rows + r)]) * double(x[size_t(i * cols + c)]);
    onEveryDevice([&](Device& device, const std::string& isa) {
      const Floats out(device, start, rows, cols);
      device.addOuter(out, Floats(device, y, m, rows), Floats(device, x, m, cols), 0.5f);
      checkGradient(isa, "addOuter", out.values(), want);
      return out.values();
    });
  }
}

TEST(grads_of_norms_match_finite_differences) {
  constexpr int64_t rows = 3;
  for (int64_t n : {1, 7, 16, 53, 96}) {
    const std::vector<float> x = randoms(size_t(rows * n), 1), dy = randoms(size_t(rows * n), 2);
    const std::vector<float> weight = randoms(size_t(n), 3), start = randoms(size_t(rows * n), 4);
    for (bool layer : {false, true})
      for (bool add : {false, true}) {
        Doubles want = differences(
            x, dy, [&](const Doubles& x) { return layer ? layerNormed(x, weight, 0.1) : rmsNormed(x, weight, 0.1); });
        for (size_t i = 0; add && i < want.size(); ++i) want[i] += double(start[i]);
        onEveryDevice([&](Device& device, const std::string& isa) {
          const Floats dx(device, start, rows, n), d(device, dy, rows, n), in(device, x, rows, n);
          const Floats w(device, weight, 1, n);
          if (layer) device.layerNormGrad(dx, d, in, w, 0.1f, add);
          else device.rmsNormGrad(dx, d, in, w, 0.1f, add);
          if (n > 1 || add || !layer) checkGradient(isa, layer ? "layerNorm" : "rmsNorm", dx.values(), want);
          return dx.values();
        });
      }
  }
}

TEST(grads_of_gelu_match_finite_differences) {
  for (int64_t n : {1, 7, 40, 67}) {
    std::vector<float> gate = randoms(size_t(2 * n), 1, 3);
    const std::vector<float> up = randoms(size_t(2 * n), 2), d = randoms(size_t(2 * n), 3);
    gate[0] = -40, gate.back() = 40;   // flat, and a line
    const Doubles wantGate = differences(gate, d, [&](const Doubles& x) {
      Doubles y;
      for (size_t i = 0; i < x.size(); ++i) y.push_back(geluTanh(x[i]) * double(up[i]));
      return y;
    });
    const Doubles wantAlone = differences(gate, d, [&](const Doubles& x) {
      Doubles y;
      for (double v : x) y.push_back(geluTanh(v));
      return y;
    });
    Doubles wantUp;
    for (size_t i = 0; i < up.size(); ++i) wantUp.push_back(double(d[i]) * geluTanh(double(gate[i])));
    onEveryDevice([&](Device& device, const std::string& isa) {
      const Floats g(device, gate, 2, n), u(device, up, 2, n), alone(device, d, 2, n), x(device, gate, 2, n);
      device.gegluGrad(g, u, Floats(device, d, 2, n));
      device.geluGrad(alone, x);
      checkGradient(isa, "geglu gate", g.values(), wantGate);
      checkGradient(isa, "geglu up", u.values(), wantUp);
      checkGradient(isa, "gelu", alone.values(), wantAlone);
      return g.values();
    });
  }
}

TEST(dropout_keeps_the_mean_and_says_by_key_and_place_what_it_drops) {
  for (int64_t n : {1, 7, 64, 301}) {
    const int64_t rows = 37;
    const std::vector<float> x = randoms(size_t(rows * n), 1), before = randoms(size_t(rows * n), 2);
    const Dropout dropout{0.25f, 0xfedcba9876543210ull};
    size_t dropped = 0;
    std::vector<float> want(x.size()), added(before);
    for (size_t i = 0; i < x.size(); ++i) {
      const bool keeps = Dropout::keeps(dropout.key, i, uint32_t(1) << 30);   // a quarter of 2^32
      dropped += !keeps;
      want[i] = keeps ? x[i] * (1 / 0.75f) : 0.0f;
      added[i] += want[i];
    }
    const double share = double(dropped) / double(x.size()), spread = std::sqrt(0.25 * 0.75 / double(x.size()));
    CHECK(std::fabs(share - 0.25) < 4 * spread);
    onEveryDevice([&](Device& device, const std::string&) {
      const Floats out(device, x, rows, n), sum(device, before, rows, n);
      device.dropout(out, out, dropout);   // in place
      device.dropout(sum, Floats(device, x, rows, n), dropout, true);
      CHECK(out.values() == want);
      CHECK(sum.values() == added);
      return out.values();
    });
  }
}

TEST(grad_of_rope_turns_back) {
  const std::vector<float> x = randoms(5 * 3 * 10, 1);
  onEveryDevice([&](Device& device, const std::string&) {
    const Floats d(device, x, 5, 30);
    const Numbers positions = positionsFrom(device, 1000, 5);
    device.rope(d, positions, 10, 10000);
    device.ropeGrad(d, positions, 10, 10000);
    const std::vector<float> out = d.values();
    for (size_t i = 0; i < x.size(); ++i) CHECK_CLOSE(out[i], x[i], 1e-6);
    return out;
  });
}

TEST(grad_of_attention_matches_finite_differences) {
  struct Case {
    int64_t n, heads, kvHeads, d;
    AttentionMask mask;
    float softcap;
  };
  const Case cases[] = {{5, 2, 1, 8, {.prefix = 3}, 0},
                        {9, 4, 2, 6, {.prefix = 5, .window = 3}, 2},
                        {9, 2, 2, 5, {.prefix = 6, .window = 2, .windowInPrefix = true}, 1},
                        {7, 3, 3, 9, {.prefix = 7}, 0},
                        {70, 1, 1, 4, {.prefix = 30, .window = 11}, 3}};
  for (const Case& c : cases) {
    const int64_t queries = c.heads * c.d, keys = c.kvHeads * c.d;
    const std::vector<float> x = randoms(size_t(c.n * (queries + 2 * keys)), 1), d = randoms(size_t(c.n * queries), 2);
    AttentionGrad job;
    job.heads = c.heads, job.kvHeads = c.kvHeads, job.mask = c.mask, job.scale = 0.4f, job.softcap = c.softcap;
    const Doubles want = differences(x, d, [&](const Doubles& x) { return attended(x, job, c.n, c.d); });
    onEveryDevice([&](Device& device, const std::string& isa) {
      const auto part = [&](int64_t from, int64_t cols) {
        return std::vector<float>(x.begin() + c.n * from, x.begin() + c.n * (from + cols));
      };
      const Floats q(device, part(0, queries), c.n, queries), k(device, part(queries, keys), c.n, keys);
      const Floats v(device, part(queries + keys, keys), c.n, keys), dout(device, d, c.n, queries);
      const Floats dq(device, c.n, queries), dk(device, c.n, keys), dv(device, c.n, keys);
      AttentionGrad here = job;
      here.dq = dq, here.dk = dk, here.dv = dv, here.dout = dout, here.q = q, here.k = k, here.v = v;
      device.attentionGrad(here);
      std::vector<float> out = dq.values();
      for (const Floats* more : {&dk, &dv}) {
        const std::vector<float> values = more->values();
        out.insert(out.end(), values.begin(), values.end());
      }
      checkGradient(isa, "attention", out, want);
      return out;
    });
  }
}

TEST(grad_of_the_loss_matches_finite_differences) {
  for (int64_t n : {5, 40, 4100})
    for (float cap : {0.0f, 3.0f}) {
      const int64_t rows = n > 1000 ? 1 : 3;
      const std::vector<float> raw = randoms(size_t(rows * n), 1, 2);
      std::vector<int32_t> targets;
      for (int64_t r = 0; r < rows; ++r) targets.push_back(int32_t((r * 7 + 3) % n));
      const auto lossesOf = [&](const Doubles& x) {
        Doubles losses;
        for (int64_t r = 0; r < rows; ++r) {
          const auto z = [&](int64_t i) {
            const double v = x[size_t(r * n + i)];
            return cap > 0 ? double(cap) * std::tanh(v / double(cap)) : v;
          };
          double sum = 0;
          for (int64_t i = 0; i < n; ++i) sum += std::exp(z(i));
          losses.push_back(std::log(sum) - z(targets[size_t(r)]));
        }
        return losses;
      };
      std::vector<float> few(raw.begin(), raw.begin() + std::min<int64_t>(n, 60));   // differences are slow
      const Doubles losses = lossesOf(wide(raw));
      const Doubles want = differences(few, std::vector<float>(size_t(rows), 1), [&](const Doubles& x) {
        Doubles all = wide(raw);
        std::copy(x.begin(), x.end(), all.begin());
        return lossesOf(all);
      });
      onEveryDevice([&](Device& device, const std::string& isa) {
        const Floats logits(device, raw, rows, n), out(device, rows, 1);
        if (cap > 0) device.softcap(logits, cap);
        device.softmaxLoss(out, logits, Numbers(device, targets, rows, 1), cap);
        for (int64_t r = 0; r < rows; ++r) CHECK_CLOSE(out.values()[size_t(r)], losses[size_t(r)], 2e-6 * 10);
        std::vector<float> got = logits.values();
        std::vector<float> compared(got.begin(), got.begin() + ptrdiff_t(few.size()));
        checkGradient(isa, "loss", compared, want);
        return got;
      });
    }
}

}  // namespace pg
