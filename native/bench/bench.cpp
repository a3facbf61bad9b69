// Microbenchmarks of the CPU ops on the shapes of PaliGemma, as shares of limits measured between them.
//
//   bench [filter] [threads]     PALIGEMMA_ISA=avx2 bench prefill
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/math.h"
#include "cpu/limits.h"
#include "cpu/cpu_device.h"
#include "cpu/cpu_info.h"

namespace pg {
namespace {

// With BENCH_CPU_TIME set: processor time, for one thread on a machine that others use too.
double now() {
  static const bool cpu = std::getenv("BENCH_CPU_TIME") != nullptr;
  if (cpu) return double(std::clock()) / CLOCKS_PER_SEC;
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Blocks of random content with sane scales: speed does not depend on what a real quantizer would have chosen.
std::vector<uint8_t> randomWeights(DType type, int64_t rows, int64_t cols) {
  const size_t bytes = bytesFor(type, cols) * size_t(rows), block = dtypeInfo(type)->bytes;
  std::vector<uint8_t> data(bytes);
  uint64_t state = 88172645463325252u;
  for (size_t i = 0; i + 8 <= bytes; i += 8) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    std::memcpy(data.data() + i, &state, 8);
  }
  const auto put = [&](size_t at, uint16_t value) {
    for (size_t b = 0; b < bytes; b += block) std::memcpy(data.data() + b + at, &value, 2);
  };
  constexpr uint16_t kSmall = 0x1c00;   // 2^-8
  switch (type) {
    case DType::q6_k: put(208, kSmall); break;
    case DType::q4_k:
    case DType::q5_k: put(0, kSmall), put(2, kSmall); break;
    case DType::f32: {
      const float half = 0.5f;
      for (size_t b = 0; b < bytes; b += 4) std::memcpy(data.data() + b, &half, 4);
      break;
    }
    default: put(0, kSmall);
  }
  return data;
}

struct Bench {
  CpuDevice device;
  const Kernels& kernels;
  std::vector<uint8_t> memory;
  std::string filter;

  Bench(const Kernels& k, int threads, std::string f)
      : device(k, threads), kernels(k), memory(size_t(256) << 20, 1), filter(std::move(f)) {}

  // Seconds of the best and of the median of at least `rounds` runs; limits are measured in between.
  struct Times {
    double best, median, peak8, read;
  };
  template <class Body>
  Times time(const Body& body, int rounds = 9) {
    std::vector<double> seconds;
    Times t{1e9, 0, 0, 0};
    body();
    const double until = now() + 0.25;
    while (int(seconds.size()) < rounds || (now() < until && seconds.size() < 200)) {
      const double start = now();
      body();
      seconds.push_back(now() - start);
      if (seconds.size() % 3 == 0) {
        t.peak8 = std::max(t.peak8, measureInt8(kernels, device.pool(), 0.002));
        t.read = std::max(t.read, measureRead(kernels, device.pool(), memory.data(), memory.size() / 4, 1));
      }
    }
    std::sort(seconds.begin(), seconds.end());
    t.best = seconds.front();
    t.median = seconds[seconds.size() / 2];
    return t;
  }

  bool wants(const std::string& name) const { return name.find(filter) != std::string::npos; }

  // Values in the device's memory.
  struct Tensor {
    Buffer buffer;
    View view;
    Tensor(Device& device, DType type, int64_t rows, int64_t cols, const void* data = nullptr)
        : buffer(device.allocate(bytesFor(type, cols) * size_t(rows))), view(buffer.view(type, rows, cols)) {
      if (data) device.upload(view, data);
    }
    operator View() const { return view; }
    operator ConstView() const { return view; }
  };
  Tensor random(int64_t rows, int64_t cols) {
    return {device, DType::f32, rows, cols, randoms(size_t(rows * cols)).data()};
  }
  Tensor empty(int64_t rows, int64_t cols) { return {device, DType::f32, rows, cols}; }
  Tensor positionsFrom(int64_t first, int64_t count) {
    std::vector<int32_t> list(static_cast<size_t>(count));
    std::iota(list.begin(), list.end(), int32_t(first));
    return {device, DType::i32, count, 1, list.data()};
  }
  static std::vector<float> randoms(size_t n) {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    std::vector<float> x(n);
    for (float& v : x) v = normal(generator);
    return x;
  }

  // More weights than caches hold
  static int64_t copiesOf(DType type, int64_t k, int64_t n) {
    return std::max<int64_t>(1, (int64_t(192) << 20) / int64_t(bytesFor(type, k) * size_t(n)));
  }

  // `compute(weights [n, k])` for m rows: the ops and the share of the limit.
  template <class Body>
  void product(const char* label, DType type, int64_t m, int64_t k, int64_t n, const Body& compute) {
    const std::string name = std::string(label) + " " + dtypeName(type) + " " + std::to_string(m) + " x " +
                             std::to_string(k) + " x " + std::to_string(n);
    if (!wants(name)) return;
    // weights come from memory, as in a model: every round takes others
    const int64_t copies = copiesOf(type, k, n);
    const Tensor w(device, type, n * copies, k, randomWeights(type, n * copies, k).data());
    int64_t copy = 0;
    const Times t = time([&] {
      compute(Linear{w.view.slice(n * copy, n), {}});
      copy = (copy + 1) % copies;
    });
    const double ops = 2.0 * double(m) * double(k) * double(n);
    std::printf("%-40s %8.3f ms (median %8.3f) %7.0f GOPS = %3.0f %% of int8 peak %5.0f\n", name.c_str(), t.best * 1e3,
                t.median * 1e3, ops / t.best / 1e9, 100 * ops / t.best / t.peak8, t.peak8 / 1e9);
  }

  void prefill(DType type, int64_t m, int64_t k, int64_t n) {
    const Tensor x = random(m, k), out = empty(m, n);
    product("prefill", type, m, k, n, [&](const Linear& linear) {
      const MatmulJob job{out, &linear};
      device.matmul(x, {&job, 1});
    });
  }

  // The gradient of what such a product read.
  void backward(DType type, int64_t m, int64_t k, int64_t n) {
    const Tensor dy = random(m, n), dx = empty(m, k);
    product("backward", type, m, k, n, [&](const Linear& linear) { device.matmulGrad(dx, dy, linear); });
  }

  // A stack of weights larger than the caches, each used once per round, as in decoding.
  void decode(DType type, int64_t m, int64_t k, int64_t n) {
    const std::string name = std::string("decode ") + dtypeName(type) + " " + std::to_string(m) + " x " +
                             std::to_string(k) + " x " + std::to_string(n);
    if (!wants(name)) return;
    const int64_t copies = copiesOf(type, k, n);
    const Tensor w(device, type, n * copies, k, randomWeights(type, n * copies, k).data());
    std::vector<Linear> linears;
    for (int64_t c = 0; c < copies; ++c) linears.push_back({w.view.slice(n * c, n), {}});
    const Tensor x = random(m, k), out = empty(m, n);
    const Times t = time([&] {
      for (const Linear& linear : linears) {
        const MatmulJob job{out, &linear};
        device.matmul(x, {&job, 1});
      }
    });
    std::printf("%-40s %8.3f ms (median %8.3f) %7.1f GB/s = %3.0f %% of read %5.1f GB/s\n", name.c_str(), t.best * 1e3,
                t.median * 1e3, double(w.view.bytes()) / t.best / 1e9, 100 * double(w.view.bytes()) / t.best / t.read,
                t.read / 1e9);
  }

  void attention(const char* label, int64_t position, int64_t rows, int64_t kvHeads, int64_t group, int64_t headDim,
                 DType type, float softcap) {
    const std::string name = std::string("attention ") + label + " " + dtypeName(type);
    if (!wants(name)) return;
    const int64_t tokens = position + rows, width = kvHeads * group * headDim;
    const KvLayout layout{.layers = 1, .kvHeads = kvHeads, .headDim = headDim, .type = type};
    const int64_t pages = ceilDiv(tokens, kPageTokens);
    const Buffer data = device.allocate(layout.pageBytes() * size_t(pages));
    std::vector<uint64_t> addresses;
    for (int64_t p = 0; p < pages; ++p) addresses.push_back(data.memory()->address + layout.pageBytes() * size_t(p));
    const Tensor table(device, DType::i64, pages, 1, addresses.data());
    const KvView kv{&layout, table, tokens};
    const Tensor keys = random(tokens, kvHeads * headDim), q = random(rows, width), out = empty(rows, width);
    const Tensor positions = positionsFrom(0, tokens);
    device.storeKv(kv, 0, keys, keys, positions);
    const AttentionJob job{out, q, kv, positions.view.slice(position, rows), {.prefix = tokens}};
    const Times t = time([&] { device.attention({&job, 1}, {0, 0.0625f, softcap, Precision::fast}); });
    const double ops = 4.0 * double(rows) * double(tokens) * double(width);
    std::printf("%-40s %8.3f ms (median %8.3f) %7.0f GFLOPS = %3.0f %% of int8 peak, %5.1f GB/s of cache\n",
                name.c_str(), t.best * 1e3, t.median * 1e3, ops / t.best / 1e9, 100 * ops / t.best / t.peak8,
                double(data.bytes()) / t.best / 1e9);
  }

  void vision(int64_t tokens) {
    const std::string name = "attention vision " + std::to_string(tokens);
    if (!wants(name)) return;
    const Tensor q = random(tokens, 1152), out = empty(tokens, 1152);
    const Times t = time([&] { device.denseAttention(out, q, q, q, 16, 0.118f, Precision::fast); }, 3);
    const double ops = 4.0 * double(tokens) * double(tokens) * 1152;
    std::printf("%-40s %8.3f ms (median %8.3f) %7.0f GFLOPS = %3.0f %% of int8 peak\n", name.c_str(), t.best * 1e3,
                t.median * 1e3, ops / t.best / 1e9, 100 * ops / t.best / t.peak8);
  }

  template <class Body>
  void rows(const char* label, size_t values, const Body& body) {
    if (!wants(label)) return;
    const Times t = time(body);
    std::printf("%-40s %8.3f ms (median %8.3f) %7.2f G values/s\n", label, t.best * 1e3, t.median * 1e3,
                double(values) / t.best / 1e9);
  }

  void all() {
    const DType quantized[] = {DType::q4_0, DType::q8_0, DType::q4_k, DType::q5_k, DType::q6_k};
    for (DType type : quantized) prefill(type, 260, 2304, 9216);
    for (DType type : quantized) prefill(type, 260, 2048, 16384);
    for (DType type : {DType::q4_0, DType::q4_k, DType::q8_0, DType::f16}) prefill(type, 260, 9216, 2304);
    prefill(DType::q8_0, 256, 1152, 4352);
    prefill(DType::q8_0, 256, 4352, 1152);
    prefill(DType::q8_0, 256, 1152, 1152);
    prefill(DType::q8_0, 1024, 1152, 4352);
    prefill(DType::f16, 256, 1152, 4304);
    prefill(DType::f32, 256, 588, 1152);
    for (DType type : quantized) backward(type, 260, 2304, 9216);
    for (DType type : {DType::q4_0, DType::q8_0}) backward(type, 260, 9216, 2304);
    for (DType type : quantized) decode(type, 1, 2304, 9216);
    for (DType type : {DType::q4_0, DType::q4_k, DType::q6_k}) decode(type, 1, 16384, 2048);
    for (DType type : {DType::f16, DType::f32, DType::bf16}) decode(type, 1, 2304, 9216);
    for (int64_t m : {2, 4, 8}) decode(DType::q4_k, m, 2304, 9216);
    for (int64_t m : {2, 4, 8}) decode(DType::q6_k, m, 2304, 9216);
    attention("prefill 260 gemma2", 0, 260, 4, 2, 256, DType::f16, 50);
    attention("prefill 260 gemma", 0, 260, 1, 8, 256, DType::f16, 0);
    attention("prefill 1030 gemma2", 0, 1030, 4, 2, 256, DType::f16, 50);
    attention("decode 270 gemma2", 270, 1, 4, 2, 256, DType::f16, 50);
    attention("decode 1030 gemma2", 1030, 1, 4, 2, 256, DType::f16, 50);
    attention("decode 4200 gemma2", 4200, 1, 4, 2, 256, DType::f16, 50);
    attention("decode 4200 gemma2", 4200, 1, 4, 2, 256, DType::q8_0, 50);
    attention("decode 4200 gemma", 4200, 1, 1, 8, 256, DType::f16, 0);
    for (int64_t tokens : {256, 1024, 4096}) vision(tokens);
    const Tensor x = random(260, 2304), y = random(260, 2304), z = random(260, 2048), w = random(1, 2304),
                 logits = random(1, 257216), best(device, DType::i32, 1, 1);
    rows("rows rmsNorm 260 x 2304", 260 * 2304, [&] { device.rmsNorm(y, x, w, 1e-6f, false); });
    rows("rows softcap 257216", 257216, [&] { device.softcap(logits, 30); });
    rows("rows argmax 257216", 257216, [&] { device.argmax(best, logits); });
    const Tensor positions = positionsFrom(0, 260);
    rows("rows rope 260 x 2048", 260 * 2048, [&] { device.rope(z, positions, 256, 10000); });
  }
};

}  // namespace
}  // namespace pg

int main(int argc, char** argv) {
  using namespace pg;
  const Kernels& kernels = chooseKernels();
  const int threads = argc > 2 ? std::atoi(argv[2]) : defaultThreads();
  Bench bench(kernels, threads, argc > 1 ? argv[1] : "");
  const Limits limits = measureLimits(kernels, bench.device.pool());
  std::printf("%s, %d threads: int8 peak %.0f GOPS, read %.1f GB/s\n", kernels.isa, threads,
              limits.int8OpsPerSecond / 1e9, limits.readBytesPerSecond / 1e9);
  bench.all();
}
