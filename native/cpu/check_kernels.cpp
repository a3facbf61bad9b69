#include "cpu/check_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "base/math.h"
#include "format/quantize.h"

namespace pg {
namespace {

using Floats = std::vector<float>;

constexpr double kExactSums = 1e-5, kFunctions = 2e-5, kSixteenBits = 2e-3, kEightBits = 0.03;

// On a cache line, as the drivers' scratch is.
class Zeros {
 public:
  explicit Zeros(int64_t bytes) : memory_(size_t(bytes) + 64) {
    data_ = reinterpret_cast<uint8_t*>(roundUp(reinterpret_cast<uintptr_t>(memory_.data()), uintptr_t(64)));
  }
  template <class T = uint8_t>
  T* get() {
    return reinterpret_cast<T*>(data_);
  }

 private:
  std::vector<uint8_t> memory_;
  uint8_t* data_;
};

struct Rows {
  Floats values;               // as the type holds them
  std::vector<uint8_t> bytes;
  size_t stride;
};

class Checker {
 public:
  Checker(const Kernels& kernels, CheckDepth depth) : k_(kernels), whole_(depth == CheckDepth::whole) {
    if (whole_)
      for (int64_t n = 1; n <= 67; ++n) lengths_.push_back(n);
    else lengths_ = {1, 7, 35};
  }

  std::vector<KernelCheck> run() {
    for (const int64_t n : lengths_) elementwise(n), functions(n), norms(n), epilogues(n), gradients(n);
    conversions();
    tiles();
    mixes();
    decoding();
    if (k_.packRows8) eightBits();
    if (k_.scores16) sixteenBits();
    return std::move(checks_);
  }

 private:
  // About -1 .. 1; the same numbers on every machine.
  Floats randoms(int64_t n) {
    Floats x(static_cast<size_t>(n));
    for (float& v : x) {
      state_ = state_ * 6364136223846793005u + 1442695040888963407u;
      v = float(int32_t(state_ >> 32)) * 0x1p-31f;
    }
    return x;
  }

  Rows rows(DType type, int64_t count, int64_t n) {
    Rows r{randoms(count * n), {}, bytesFor(type, n)};
    r.bytes.resize(r.stride * size_t(count));
    for (int64_t i = 0; i < count; ++i) {
      float* values = r.values.data() + i * n;
      uint8_t* bytes = r.bytes.data() + r.stride * size_t(i);
      if (i < kOwnRows || whole_) {
        quantizeRow(type, values, bytes, n);
        dequantizeRow(type, bytes, values, n);
      } else {   // quantizers take longest
        std::copy_n(values - kOwnRows * n, n, values);
        std::copy_n(bytes - kOwnRows * r.stride, r.stride, bytes);
      }
    }
    return r;
  }

  static constexpr int64_t kOwnRows = 3;

  void note(const char* kernel, double error, double allowed) {
    if (std::isnan(error)) error = INFINITY;
    for (KernelCheck& check : checks_)
      if (std::strcmp(check.kernel, kernel) == 0) {
        check.error = std::max(check.error, error);
        return;
      }
    checks_.push_back({kernel, error, allowed});
  }

  void compare(const char* kernel, double allowed, std::span<const float> got, std::span<const float> want) {
    double worst = 0, size = 1e-30;
    for (size_t i = 0; i < want.size(); ++i) {
      const double difference = std::fabs(double(got[i]) - double(want[i]));
      worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
      size = std::max(size, std::fabs(double(want[i])));
    }
    note(kernel, worst / size, allowed);
  }

  // body(kernels, buffer) with this table and the scalar one; a value behind the end must stay.
  template <class Body>
  void both(const char* kernel, double allowed, Floats start, const Body& body) {
    start.push_back(1);
    Floats want = start;
    body(k_, start.data());
    body(kKernelsScalar, want.data());
    compare(kernel, allowed, start, want);
  }

  void elementwise(int64_t n) {
    const Floats a = randoms(n), b = randoms(n);
    both("dot", kExactSums, {0}, [&](const Kernels& k, float* y) { *y = k.dot(a.data(), b.data(), n); });
    both("scale", kExactSums, a, [&](const Kernels& k, float* y) { k.scale(y, 0.7f, n); });
    both("add", kExactSums, a, [&](const Kernels& k, float* y) { k.add(y, b.data(), n); });
    both("max", kExactSums, {0}, [&](const Kernels& k, float* y) { *y = k.max(a.data(), n); });
    both("rope", kExactSums, randoms(2 * n), [&](const Kernels& k, float* y) { k.rope(y, a.data(), b.data(), n); });
  }

  void functions(int64_t n) {
    Floats a = randoms(n);
    const Floats b = randoms(n);
    for (float& v : a) v *= 4;
    both("expSum", kFunctions, a, [&](const Kernels& k, float* y) { y[n] = k.expSum(y, 3, n); });
    for (const float cap : {0.0f, 2.0f})
      both("softmaxStep", kFunctions, joined(a, {0, 1, 0}),
           [&](const Kernels& k, float* y) { y[n] = k.softmaxStep(y, 0.7f, cap, y + n + 1, y + n + 2, n); });
    both("softcap", kFunctions, a, [&](const Kernels& k, float* y) { k.softcap(y, 3, n); });
    both("gelu", kFunctions, a, [&](const Kernels& k, float* y) { k.gelu(y, n); });
    both("geluMul", kFunctions, a, [&](const Kernels& k, float* y) { k.geluMul(y, y, b.data(), n); });
  }

  static Floats joined(Floats a, const Floats& b) {
    a.insert(a.end(), b.begin(), b.end());
    return a;
  }

  void norms(int64_t n) {
    const Floats x = randoms(n), w = randoms(n), b = randoms(n);
    for (const bool add : {false, true})
      both("rmsNorm", kFunctions, x,
           [&](const Kernels& k, float* y) { k.rmsNorm(y, x.data(), w.data(), 1e-3f, add, n); });
    both("layerNorm", kFunctions, x,
         [&](const Kernels& k, float* y) { k.layerNorm(y, x.data(), w.data(), b.data(), 1e-3f, n); });
  }

  void epilogues(int64_t n) {
    const Floats acc = randoms(2 * n), second = randoms(2 * n), bias = randoms(n);
    for (const Epilogue kind : {Epilogue::store, Epilogue::gelu, Epilogue::add, Epilogue::geglu})
      both("finish", kFunctions, randoms(2 * n), [&](const Kernels& k, float* y) {
        k.finish(kind, y, n, {acc.data(), second.data(), n, bias.data(), bias.data()}, n, 2);
      });
  }

  void gradients(int64_t n) {
    const Floats x = randoms(n), w = randoms(n), d = randoms(n);
    for (const bool add : {false, true})
      both("rmsNormGrad", kFunctions, d,
           [&](const Kernels& k, float* y) { k.rmsNormGrad(y, d.data(), x.data(), w.data(), 1e-3f, add, n); });
    // of one value the gradient is zero, and two roundings of it are nothing to compare
    for (const bool add : n > 1 ? std::vector<bool>{false, true} : std::vector<bool>{true})
      both("layerNormGrad", kFunctions, d,
           [&](const Kernels& k, float* y) { k.layerNormGrad(y, d.data(), x.data(), w.data(), 1e-3f, add, n); });
    both("geluGrad", kFunctions, d, [&](const Kernels& k, float* y) { k.geluGrad(y, x.data(), n); });
    both("geluMulGrad", kFunctions, joined(x, w),
         [&](const Kernels& k, float* y) { k.geluMulGrad(y, y + n, d.data(), n); });
    for (const float cap : {0.0f, 2.0f}) {
      both("softmaxGrad", kFunctions, d,
           [&](const Kernels& k, float* y) { k.softmaxGrad(y, w.data(), x.data(), 0.3f, 0.7f, cap, n); });
      both("logSumExpGrad", kFunctions, x, [&](const Kernels& k, float* y) { k.logSumExpGrad(y, 1.5f, 0.7f, cap, n); });
    }
    both("logSumExp", kFunctions, {0}, [&](const Kernels& k, float* y) { *y = k.logSumExp(x.data(), n); });
  }

  // Bit for bit.
  void conversions() {
    constexpr DType kTypes[] = {DType::f32,  DType::f16,  DType::bf16, DType::q8_0,
                                DType::q4_0, DType::q4_k, DType::q5_k, DType::q6_k};
    for (const DType type : kTypes) {
      const int64_t n = dtypeInfo(type)->block == 1 ? 35 : 256;
      const Rows r = rows(type, 1, n);
      Floats got(static_cast<size_t>(n));
      k_.toF32(type, r.bytes.data(), got.data(), n);
      note("toF32", std::memcmp(got.data(), r.values.data(), size_t(n) * 4) == 0 ? 0 : INFINITY, 0);
      if (type != DType::f32 && type != DType::f16 && type != DType::q8_0) continue;
      std::vector<uint8_t> back(r.bytes.size());
      quantizeRow(type, r.values.data(), back.data(), n);
      std::vector<uint8_t> own(back.size());
      k_.fromF32(type, r.values.data(), own.data(), n);
      note("fromF32", own == back ? 0 : INFINITY, 0);
    }
  }

  // [tokens][rows] products in double
  static Floats products(const Floats& x, const Floats& w, int64_t tokens, int64_t rows, int64_t n) {
    Floats out(size_t(tokens * rows));
    for (int64_t t = 0; t < tokens; ++t)
      for (int64_t r = 0; r < rows; ++r) {
        double sum = 0;
        for (int64_t i = 0; i < n; ++i) sum += double(x[size_t(t * n + i)]) * w[size_t(r * n + i)];
        out[size_t(t * rows + r)] = float(sum);
      }
    return out;
  }

  void tiles() {
    for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0})
      for (const int64_t n : type == DType::q8_0 ? std::vector<int64_t>{64} : std::vector<int64_t>{33}) {
        const Rows w = rows(type, k_.tileRows, n);
        const Floats x = randoms(k_.tileTokens * n);
        Zeros panel(4 * k_.tileRows * n), tokens(4 * k_.tileTokens * n);
        Floats out(size_t(k_.tileTokens * k_.tileRows));
        k_.packRows(type, w.bytes.data(), w.stride, k_.tileRows, 0, n, panel.get<float>());
        k_.packTokens(x.data(), n, k_.tileTokens, n, tokens.get<float>());
        k_.tile(out.data(), k_.tileRows, panel.get<float>(), tokens.get<float>(), n, false);
        compare("tile", kExactSums, out, products(x, w.values, k_.tileTokens, k_.tileRows, n));
      }
  }

  void mixes() {
    const int64_t cols = 96, tokens = std::min(k_.tileTokens, kKernelsScalar.tileTokens);
    for (const DType type : {DType::f32, DType::f16, DType::q8_0})
      for (const int64_t keys : {1, 5}) {
        const Rows v = rows(type, keys, cols);
        const Floats p = randoms(tokens * kTileGroup), keep = randoms(tokens);
        both("mix", kExactSums, randoms(tokens * cols), [&](const Kernels& k, float* y) {
          k.mix(y, cols, keep.data(), p.data(), type, v.bytes.data(), v.stride, keys, cols, tokens);
        });
      }
  }

  void decoding() {
    for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0})
      for (const int64_t count : {int64_t(1), int64_t(3), kMaxDecodeTokens}) {
        const int64_t n = type == DType::q8_0 ? 96 : 67;
        const Rows w = rows(type, 3, n);
        const Floats x = randoms(count * n);
        both("dotRows", kExactSums, Floats(size_t(count * 3)), [&](const Kernels& k, float* y) {
          k.dotRows(type, w.bytes.data(), w.stride, 3, n, x.data(), n, count, y);
        });
      }
  }

  // Root of the mean square: activations in 8 bits differ everywhere a little.
  void compareNorms(const char* kernel, double allowed, std::span<const float> got, std::span<const float> want) {
    double difference = 0, size = 1e-30;
    for (size_t i = 0; i < want.size(); ++i) {
      difference += std::pow(double(got[i]) - double(want[i]), 2);
      size += std::pow(double(want[i]), 2);
    }
    note(kernel, std::sqrt(difference / size), allowed);
  }

  void eightBits() {
    const std::vector<int64_t> sizes = whole_ ? std::vector<int64_t>{256, 768} : std::vector<int64_t>{256};
    for (const DType type : {DType::f32, DType::q8_0, DType::q4_0, DType::q4_k, DType::q5_k, DType::q6_k})
      for (const int64_t n : sizes) {
        const Rows w = rows(type, k_.tileRows, n);
        if (type == DType::f32 || k_.hasTile8(type)) tile8(type, w, n);
        if (k_.hasDot8(type)) dotRows8(type, w, n);
        if (k_.hasLevels && k_.hasLevels(type)) tileLevels(type, w, n);
      }
  }

  void tile8(DType type, const Rows& w, int64_t n) {
    const int64_t height = k_.tileRows, width = k_.tileTokens, groups = n / kTileGroup;
    const Floats x = randoms(width * n);
    Zeros panel(height * n * k_.panelBytes), tokens(width * n * k_.tokenBytes), rowScales(4 * height * groups),
        tokenScales(4 * width * groups), offsets(4 * width * groups);
    Floats out(size_t(width * height));
    if (type == DType::f32) {  // what lies the other way
      Floats turned(size_t(n * height));
      for (int64_t r = 0; r < height; ++r)
        for (int64_t c = 0; c < n; ++c) turned[size_t(c * height + r)] = w.values[size_t(r * n + c)];
      for (int64_t g = 0; g < groups; ++g)
        k_.packColumns8(turned.data() + g * kTileGroup * height, height, kTileGroup,
                        panel.get() + g * height * kTileGroup * k_.panelBytes, rowScales.get<float>() + g * height);
    } else {
      k_.packRows8(type, w.bytes.data(), w.stride, height, 0, n, panel.get(), rowScales.get<float>());
    }
    k_.packTokens8(x.data(), n, width, n, tokens.get(), tokenScales.get<float>(), offsets.get<int32_t>());
    k_.tile8(out.data(), panel.get(), rowScales.get<float>(), tokens.get(), tokenScales.get<float>(),
             offsets.get<int32_t>(), groups);
    compareNorms("tile8", kEightBits, out, products(x, w.values, width, height, n));
  }

  void tileLevels(DType type, const Rows& w, int64_t n) {
    const int64_t height = k_.tileRows, width = k_.tileTokens, blocks = n / 32;
    const Floats x = randoms(width * n);
    Zeros panel(blocks * k_.levelBlockBytes), tokens(ceilDiv(n, kRowBlock) * width * k_.tokenBlockBytes);
    Floats out(size_t(width * height));
    k_.packLevels(type, w.bytes.data(), w.stride, height, 0, n, panel.get());
    k_.packTokenLevels(x.data(), n, width, n, tokens.get());
    k_.tileLevels(type, out.data(), panel.get(), tokens.get(), blocks);
    compareNorms("tileLevels", kEightBits, out, products(x, w.values, width, height, n));
  }

  void dotRows8(DType type, const Rows& w, int64_t n) {
    const int64_t height = 3;
    for (const int64_t count : {int64_t(1), kMaxDecodeTokens}) {
      const Floats x = randoms(count * n);
      Zeros tokens(count * ceilDiv(n, kRowBlock) * k_.tokenBlockBytes);
      Floats out(size_t(count * height));
      k_.quantizeTokens(x.data(), n, count, n, tokens.get());
      k_.dotRows8(type, w.bytes.data(), w.stride, height, n, tokens.get(), count, out.data());
      compareNorms("dotRows8", kEightBits, out, products(x, w.values, count, height, n));
    }
  }

  void sixteenBits() {
    const int64_t n = 64, width = k_.tileTokens;
    for (const DType type : {DType::f32, DType::f16, DType::bf16, DType::q8_0}) {
      const int level = int(std::sqrt(2147483647.0 / double(n)));
      const Rows keys = rows(type, kTileGroup, n);
      const Floats x = randoms(width * n);
      Zeros queries(2 * width * kRow16), panels(2 * kTileGroup * n);
      Floats queryScales(static_cast<size_t>(width)), keyScales(kTileGroup), out(size_t(width * kTileGroup));
      for (int64_t t = 0; t < width; ++t)
        k_.packQueries16(x.data() + t * n, n, level, queries.get<int16_t>() + t * kRow16, &queryScales[size_t(t)]);
      k_.packKeys16(type, keys.bytes.data(), keys.stride, kTileGroup, n, level, panels.get<int16_t>(),
                    keyScales.data());
      k_.scores16(out.data(), queries.get<int16_t>(), queryScales.data(), panels.get<int16_t>(), keyScales.data(), n);
      compare("scores16", kSixteenBits, out, products(x, keys.values, width, kTileGroup, n));
      if (whole_ || type == DType::f16) attention16(type, n);
    }
  }

  // softmax16 and mix16 together: what a tile of keys gives each query.
  void attention16(DType type, int64_t n) {
    const int64_t width = k_.tileTokens;
    const Rows values = rows(type, kTileGroup, n);
    const Floats scores = randoms(width * kTileGroup);
    Zeros panels(2 * kTileGroup * n), p(2 * width * kTileGroup);
    Floats scales(kTileGroup), keep(static_cast<size_t>(width)), weights(static_cast<size_t>(width)),
        out(size_t(width * n)), want(size_t(width * n));
    k_.packValues16(type, values.bytes.data(), values.stride, kTileGroup, n, panels.get<int16_t>(), scales.data());
    for (int64_t t = 0; t < width; ++t) {
      float top = -INFINITY, sum = 0;
      keep[size_t(t)] = k_.softmax16(scores.data() + t * kTileGroup, 0, kTileGroup, 0, scales.data(), &top, &sum,
                                     p.get<int16_t>() + t * kTileGroup, &weights[size_t(t)]);
      float largest = -INFINITY;
      for (int64_t i = 0; i < kTileGroup; ++i) largest = std::max(largest, scores[size_t(t * kTileGroup + i)]);
      double all = 0;
      for (int64_t i = 0; i < kTileGroup; ++i) {
        const double weight = std::exp2(double(scores[size_t(t * kTileGroup + i)]) - largest);
        all += weight;
        for (int64_t c = 0; c < n; ++c) want[size_t(t * n + c)] += float(weight * values.values[size_t(i * n + c)]);
      }
      note("softmax16", std::fabs(sum - all) / all, kFunctions);
    }
    k_.mix16(out.data(), n, keep.data(), weights.data(), p.get<int16_t>(), panels.get<int16_t>(), n);
    compare("mix16", kSixteenBits, out, want);
  }

  const Kernels& k_;
  const bool whole_;
  std::vector<int64_t> lengths_;
  uint64_t state_ = 1;
  std::vector<KernelCheck> checks_;
};

}  // namespace

std::vector<KernelCheck> checkKernels(const Kernels& kernels, CheckDepth depth) {
  return Checker(kernels, depth).run();
}

}  // namespace pg
