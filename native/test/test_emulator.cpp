// The emulator itself: what CUDA's words mean, mistakes that a GPU would answer with nonsense or a hang, and the driver
// around it.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "base/half.h"
#include "check.h"
#include "gpu/kernels/dialect.h"
#include "gpu/emulator/emulated_driver.h"

using namespace pg;
using namespace pg::gpu;

namespace {

struct Count {
  int32_t n;
};

KERNEL(256, emulator_indices, (Count, int* out)) {
  const int group = int(blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z));
  const int thread = int(threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z));
  const int threads = int(blockDim.x * blockDim.y * blockDim.z);
  out[group * threads + thread] = group * 1000 + thread;
}

// The sum of each group's slice, by way of shared memory, as reductions are written.
KERNEL(256, emulator_group_sums, (Count, const float* x, float* out)) {
  TG_ARRAY(float, partial, 256);
  TG_LARGE(float, copy, 128);
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  copy[threadIdx.x] = i < uint32_t(a.n) ? x[i] : 0;
  __syncthreads();
  partial[threadIdx.x] = copy[blockDim.x - 1 - threadIdx.x];
  __syncthreads();
  for (uint32_t half = blockDim.x / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) out[blockIdx.x] = partial[0];
}

KERNEL(64, emulator_shuffles, (Count, int* out)) {
  const int i = int(threadIdx.x), lane = i % 32;
  int* const mine = out + i * 8;
  mine[0] = __shfl_xor_sync(~0u, i, 5);
  mine[1] = __shfl_sync(~0u, i, 3);
  mine[2] = __shfl_down_sync(~0u, i, 4);
  mine[3] = __shfl_up_sync(~0u, i, 4);
  mine[4] = __shfl_sync(~0u, i, 1, 8);
  mine[5] = __shfl_down_sync(~0u, i, 3, 16);
  mine[6] = int(__ballot_sync(~0u, lane % 3 == 0));
  double sum = i;
  for (int bits = 16; bits > 0; bits /= 2) sum += __shfl_xor_sync(~0u, sum, bits);
  mine[7] = int(sum);
}

KERNEL(1024, emulator_dot, (Count, const int* x, const int* y, int* out)) {
  out[threadIdx.x] = __dp4a(x[threadIdx.x], y[threadIdx.x], 7);
}

KERNEL(64, emulator_some_at_barrier, (Count, float* out)) {
  if (int(threadIdx.x) < a.n) __syncthreads();
  out[threadIdx.x] = 1;
}

KERNEL(64, emulator_other_barrier, (Count, float* out)) {
  if (int(threadIdx.x) < a.n) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

KERNEL(64, emulator_some_lanes, (Count, int* out)) {
  if (int(threadIdx.x) < a.n) out[threadIdx.x] = __shfl_xor_sync(~0u, 1, 1);
}

KERNEL(64, emulator_mask, (Count, int* out)) { out[threadIdx.x] = __shfl_xor_sync(0xffff, 1, 1); }

KERNEL(64, emulator_race, (Count, float* out)) {
  TG_ARRAY(float, last, 1);
  last[0] = float(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = last[0];
}

KERNEL(64, emulator_no_barrier, (Count, float* out)) {
  TG_ARRAY(float, row, 64);
  row[threadIdx.x] = float(threadIdx.x);
  out[threadIdx.x] = row[(threadIdx.x + 1) % 64];
}

KERNEL(32, emulator_unwritten, (Count, float* out)) {
  TG_ARRAY(float, row, 32);
  out[threadIdx.x] = row[threadIdx.x];
}

KERNEL(64, emulator_too_much, (Count, float* out)) {
  TG_ARRAY(float, row, 20000);
  row[threadIdx.x] = 1;
  out[threadIdx.x] = row[threadIdx.x];
}

struct Follow {
  uint64_t address;
};
KERNEL(32, emulator_follow, (Follow, float* out)) {
  out[threadIdx.x] = reinterpret_cast<const float*>(a.address)[threadIdx.x];
}

struct Mma {
  int32_t bf16;
};
// c += a b, with the registers that PTX's tables ask of each lane.
KERNEL(32, emulator_mma, (Mma, const uint16_t* left, const uint16_t* right, float* c)) {
  const uint32_t row = threadIdx.x / 4, pair = threadIdx.x % 4 * 2;
  const auto two = [](uint32_t low, uint32_t high) { return low | high << 16; };
  uint32_t ra[4], rb[2];
  for (uint32_t i = 0; i < 4; ++i) {
    const uint16_t* at = left + (row + i % 2 * 8) * 16 + pair + i / 2 * 8;
    ra[i] = two(at[0], at[1]);
  }
  for (uint32_t i = 0; i < 2; ++i) {
    const uint16_t* at = right + (pair + i * 8) * 8 + row;
    rb[i] = two(at[0], at[8]);
  }
  float* const out[2] = {c + row * 8 + pair, c + (row + 8) * 8 + pair};
  float sums[4] = {out[0][0], out[0][1], out[1][0], out[1][1]};
  if (a.bf16) mma16816Bf16(sums, ra, rb);
  else mma16816F16(sums, ra, rb);
  for (int i = 0; i < 4; ++i) out[i / 2][i % 2] = sums[i];
}

std::vector<float> randoms(size_t n, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, 1);
  std::vector<float> x(n);
  for (float& v : x) v = normal(generator);
  return x;
}

template <class Args>
std::span<const uint8_t> bytesOf(const Args& args) {
  return {reinterpret_cast<const uint8_t*>(&args), sizeof args};
}

template <class T>
std::unique_ptr<Memory> memoryOf(Driver& driver, const std::vector<T>& values) {
  auto memory = driver.allocate(values.size() * sizeof(T));
  driver.upload(*memory, 0, values.data(), memory->bytes);
  return memory;
}

template <class T>
std::vector<T> valuesOf(Driver& driver, const Memory& memory) {
  std::vector<T> values(memory.bytes / sizeof(T));
  driver.download(values.data(), memory, 0, memory.bytes);
  return values;
}

EmulatedDriver checking() { return EmulatedDriver({.threads = 2, .bothOrders = true}); }

// Launches a kernel over 64 values and returns them.
std::vector<float> run(Driver& driver, const char* kernel, int32_t n, uint32_t threads = 64) {
  const auto out = memoryOf(driver, std::vector<float>(64));
  const Binding buffers[] = {{out.get()}};
  driver.launch(kernel, {}, {threads}, bytesOf(Count{n}), buffers);
  return valuesOf<float>(driver, *out);
}

}  // namespace

TEST(emulator_gives_each_thread_its_place) {
  EmulatedDriver driver = checking();
  const auto out = memoryOf(driver, std::vector<int32_t>(24 * 60));
  const Binding buffers[] = {{out.get()}};
  driver.launch("emulator_indices", {2, 3, 4}, {5, 4, 3}, bytesOf(Count{0}), buffers);
  const auto values = valuesOf<int32_t>(driver, *out);
  for (int i = 0; i < 24 * 60; ++i) CHECK_EQUAL(values[size_t(i)], i / 60 * 1000 + i % 60);
}

TEST(emulator_groups_share_arrays_and_meet_at_barriers) {
  for (const int threads : {1, 3}) {
    EmulatedDriver driver({.threads = threads, .bothOrders = true});
    const std::vector<float> x = randoms(1000, 1);
    const auto in = memoryOf(driver, x), out = memoryOf(driver, std::vector<float>(8));
    const Binding buffers[] = {{in.get()}, {out.get()}};
    driver.launch("emulator_group_sums", {8}, {128}, bytesOf(Count{1000}), buffers, 128 * sizeof(float));
    const auto sums = valuesOf<float>(driver, *out);
    for (size_t g = 0; g < 8; ++g) {
      const size_t end = std::min<size_t>(1000, (g + 1) * 128);
      CHECK_CLOSE(sums[g], std::accumulate(x.begin() + ptrdiff_t(g * 128), x.begin() + ptrdiff_t(end), 0.0), 1e-4);
    }
  }
}

TEST(emulator_lanes_exchange_values) {
  EmulatedDriver driver = checking();
  const auto out = memoryOf(driver, std::vector<int32_t>(64 * 8));
  const Binding buffers[] = {{out.get()}};
  driver.launch("emulator_shuffles", {}, {64}, bytesOf(Count{0}), buffers);
  const auto values = valuesOf<int32_t>(driver, *out);
  for (int i = 0; i < 64; ++i) {
    const int lane = i % 32, warp = i - lane;
    const int32_t* mine = values.data() + i * 8;
    CHECK_EQUAL(mine[0], i ^ 5);
    CHECK_EQUAL(mine[1], warp + 3);
    CHECK_EQUAL(mine[2], lane + 4 < 32 ? i + 4 : i);
    CHECK_EQUAL(mine[3], lane >= 4 ? i - 4 : i);
    CHECK_EQUAL(mine[4], warp + lane / 8 * 8 + 1);
    CHECK_EQUAL(mine[5], lane % 16 + 3 < 16 ? i + 3 : i);
    CHECK_EQUAL(uint32_t(mine[6]), 0x49249249u);
    CHECK_EQUAL(mine[7], warp * 32 + 31 * 32 / 2);
  }
}

TEST(emulator_multiplies_bytes_with_signs) {
  EmulatedDriver driver = checking();
  const auto a = memoryOf<int32_t>(driver, {0x01ff7f80, -1}), b = memoryOf<int32_t>(driver, {0x0202ff7f, 0x01020304});
  const auto out = memoryOf<int32_t>(driver, {0, 0});
  const Binding buffers[] = {{a.get()}, {b.get()}, {out.get()}};
  driver.launch("emulator_dot", {}, {2}, bytesOf(Count{0}), buffers);
  const auto values = valuesOf<int32_t>(driver, *out);
  CHECK_EQUAL(values[0], 7 - 128 * 127 - 127 - 2 + 2);
  CHECK_EQUAL(values[1], 7 - 10);
}

TEST(emulator_tensor_cores_multiply_as_PTX_lays_registers_out) {
  for (const int32_t bf16 : {0, 1}) {
    EmulatedDriver driver = checking();
    std::vector<uint16_t> a, b;
    std::vector<float> c = randoms(16 * 8, 3);
    for (const float v : randoms(16 * 16, 1)) a.push_back(bf16 ? f32ToBf16(v) : f32ToF16(v));
    for (const float v : randoms(16 * 8, 2)) b.push_back(bf16 ? f32ToBf16(v) : f32ToF16(v));
    const auto da = memoryOf(driver, a), db = memoryOf(driver, b), dc = memoryOf(driver, c);
    const Binding buffers[] = {{da.get()}, {db.get()}, {dc.get()}};
    driver.launch("emulator_mma", {}, {32}, bytesOf(Mma{bf16}), buffers);
    const auto out = valuesOf<float>(driver, *dc);
    const auto value = [&](uint16_t bits) { return double(bf16 ? bf16ToF32(bits) : f16ToF32(bits)); };
    for (size_t row = 0; row < 16; ++row)
      for (size_t column = 0; column < 8; ++column) {
        double sum = c[row * 8 + column];
        for (size_t k = 0; k < 16; ++k) sum += value(a[row * 16 + k]) * value(b[k * 8 + column]);
        CHECK_CLOSE(out[row * 8 + column], sum, 1e-5);
      }
  }
}

TEST(emulator_reports_what_would_hang_a_gpu) {
  EmulatedDriver driver;
  const auto fails = [&](const char* kernel, int32_t n, const char* part) {
    CHECK_FAILS(run(driver, kernel, n), Code::internal, part);
    CHECK_FAILS(run(driver, kernel, n), Code::internal, kernel);
  };
  fails("emulator_some_at_barrier", 40, "40 threads wait at the barrier");
  fails("emulator_some_at_barrier", 63, "1 of 64 have ended");
  fails("emulator_other_barrier", 32, "divergent: some threads are at the barrier of line");
  fails("emulator_some_lanes", 20, "20 threads wait at the warp operation");
  fails("emulator_mask", 0, "some lanes only");
  fails("emulator_too_much", 0, "takes 80000 bytes of shared memory");
  // and goes on with the next
  CHECK_EQUAL(run(driver, "emulator_some_at_barrier", 64)[63], 1.0f);
  CHECK_EQUAL(run(driver, "emulator_some_lanes", 32)[31], bitsToFloat(1));
}

TEST(emulator_reports_what_depends_on_the_order_of_threads) {
  EmulatedDriver driver = checking();
  CHECK_FAILS(run(driver, "emulator_race", 0), Code::internal, "emulator_race: the order of its threads changes byte");
  CHECK_FAILS(run(driver, "emulator_no_barrier", 0), Code::internal, "the order of its threads");
  // memory that nobody wrote holds no zeros to rely on
  CHECK(std::isnan(run(driver, "emulator_unwritten", 0, 32)[0]));
}

TEST(emulator_reports_wrong_launches) {
  EmulatedDriver driver({.memoryBytes = 4 << 20});
  const auto memory = driver.allocate(256);
  const Binding one[] = {{memory.get()}}, outside[] = {{memory.get(), 257}};
  const Count args{1};
  const auto fails = [&](const char* kernel, Size3 groups, Size3 size, std::span<const uint8_t> bytes,
                         std::span<const Binding> buffers, const char* part) {
    CHECK_FAILS(driver.launch(kernel, groups, size, bytes, buffers, 0), Code::internal, part);
  };
  fails("nothing", {}, {}, bytesOf(args), one, "no such kernel");
  fails("emulator_race", {}, {64}, bytesOf(Mma{1}).first(2), one, "takes args of 4 bytes, not 2");
  fails("emulator_race", {}, {64}, bytesOf(args), {}, "takes 1 buffers, not 0");
  fails("emulator_race", {}, {65}, bytesOf(args), one, "groups of 64 threads, not 65");
  fails("emulator_race", {0}, {64}, bytesOf(args), one, "0 x 1 x 1 groups");
  fails("emulator_race", {1, 70000}, {64}, bytesOf(args), one, "1 x 70000 x 1 groups");
  fails("emulator_race", {}, {64}, bytesOf(args), outside, "outside of a memory of 256");
  CHECK_FAILS(driver.upload(*memory, 1, nullptr, 256), Code::internal, "outside of a memory of 256");
  CHECK_FAILS(driver.allocate(5 << 20), Code::outOfMemory, "has 3 MiB of 4 MiB free, but 6 MiB were asked for");
}

TEST(emulator_runs_gathered_launches_in_their_order) {
  EmulatedDriver driver;
  const auto x = memoryOf(driver, randoms(32, 1)), y = driver.allocate(32 * 4), z = driver.allocate(32 * 4);
  const auto copyTo = [&](const Memory& to, const Memory& from) {
    const Binding buffers[] = {{&to}};
    driver.launch("emulator_follow", {}, {32}, bytesOf(Follow{from.address}), buffers);
  };
  driver.begin();
  copyTo(*y, *x);
  driver.copy(*z, 64, *y, 0, 64);
  driver.end(true);
  CHECK(valuesOf<float>(driver, *y) == randoms(32, 1));
  CHECK_EQUAL(valuesOf<float>(driver, *z)[16], randoms(32, 1)[0]);
  CHECK_EQUAL(valuesOf<float>(driver, *z)[0], 0.0f);
  driver.begin();
  copyTo(*z, *x);
  driver.end(false);  // not wanted any more
  CHECK_EQUAL(valuesOf<float>(driver, *z)[0], 0.0f);
}

TEST(emulator_loses_its_device_when_told) {
  EmulatedDriver driver({.launchesUntilLost = 1});
  CHECK_EQUAL(run(driver, "emulator_some_at_barrier", 64)[0], 1.0f);
  CHECK_FAILS(run(driver, "emulator_some_at_barrier", 64), Code::deviceLost, "lost");
}
