#pragma once
// What the tests of the ops share: random tensors, weights of any type, and every device that runs here.
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>

#include "check.h"
#include "cpu/cpu_device.h"
#include "cpu/cpu_info.h"
#include "far_device.h"
#include "format/quantize.h"
#include "gpu/cuda/cuda_devices.h"
#include "gpu/cuda/cuda_driver.h"
#include "gpu/emulator/emulated_driver.h"
#include "gpu/gpu_device.h"
#include "reference_values.h"

namespace pg::test {

// Values in a device's memory.
template <class T>
class Tensor {
 public:
  Tensor(Device& device, const std::vector<T>& values, int64_t rows, int64_t cols)
      : device_(device), buffer_(device.allocate(values.size() * sizeof(T))), view_(buffer_.view(kType, rows, cols)) {
    device.upload(view_, values.data());
  }
  Tensor(Device& device, int64_t rows, int64_t cols)
      : Tensor(device, std::vector<T>(size_t(rows * cols)), rows, cols) {}

  operator View() const { return view_; }
  operator ConstView() const { return view_; }
  View slice(int64_t begin, int64_t count) const { return view_.slice(begin, count); }
  View columns(int64_t begin, int64_t count) const { return view_.columns(begin, count); }
  std::vector<T> values() const {
    std::vector<T> values(size_t(view_.rows * view_.cols));
    device_.download(values.data(), view_);
    return values;
  }

 private:
  static constexpr DType kType = sizeof(T) == 8 ? DType::i64 : std::is_same_v<T, int32_t> ? DType::i32 : DType::f32;
  Device& device_;
  Buffer buffer_;
  View view_;
};
using Floats = Tensor<float>;
using Numbers = Tensor<int32_t>;

inline Numbers positionsFrom(Device& device, int64_t first, int64_t count) {
  std::vector<int32_t> list;
  for (int64_t i = 0; i < count; ++i) list.push_back(int32_t(first + i));
  return {device, list, count, 1};
}

// A weight matrix of any type, with the f32 values it stands for.
struct Matrix {
  DType type;
  int64_t rows, cols;
  std::vector<uint8_t> bytes;
  std::vector<float> values, bias;

  Matrix(DType t, int64_t r, int64_t c, unsigned seed, std::vector<float> b = {})
      : type(t), rows(r), cols(c), values(randoms(size_t(r * c), seed, 0.3f)), bias(std::move(b)) {
    const size_t rowBytes = bytesFor(type, cols);
    bytes.resize(rowBytes * size_t(rows));
    for (int64_t row = 0; row < rows; ++row) {
      uint8_t* to = bytes.data() + size_t(row) * rowBytes;
      quantizeRow(type, values.data() + row * cols, to, cols);
      dequantizeRow(type, to, values.data() + row * cols, cols);
    }
  }

  struct Placed {
    Linear linear;
    std::vector<Buffer> memory;
  };
  Placed on(Device& device) const {
    Placed placed;
    std::vector<Placement> weights{{.host = {bytes.data(), type, rows, cols}, .file = {}, .to = &placed.linear.weight}};
    if (!bias.empty())
      weights.push_back({.host = {reinterpret_cast<const uint8_t*>(bias.data()), DType::f32, 1, rows},
                         .file = {},
                         .to = &placed.linear.bias});
    placed.memory = device.place(weights);
    return placed;
  }
};

// |a - b| / |b| over all values
inline double relativeError(const std::vector<float>& a, const std::vector<double>& b) {
  double difference = 0, size = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  return std::sqrt(difference / (size + 1e-30));
}

inline const std::string kEmulatedCuda = "cuda-emulated", kEmulatedMetal = "metal-emulated";
inline bool isGpu(const std::string& isa) { return isa == kEmulatedCuda || isa == kEmulatedMetal; }

// As CUDA's and Apple's GPUs are: the latter have less shared memory.
inline gpu::EmulatorOptions emulated(const std::string& kind) {
  const bool metal = kind == kEmulatedMetal;
  return {.kind = kind,
          .kernels = metal ? &gpu::metalKernels() : &gpu::cudaKernels(),
          .threads = 2,
          .bothOrders = true,
          .groupMemoryBytes = uint32_t(metal ? 32 : 100) << 10,
          .unified = metal};
}

#ifdef PG_TEST_CARD
// What `node scripts/build-ptx.mjs --text FILE` wrote.
inline gpu::cuda::PtxKernels kernelsForCard() {
  const char* path = std::getenv("PALIGEMMA_PTX");
  std::ifstream file(path ? path : "", std::ios::binary);
  if (!file) fail(Code::deviceUnavailable, "PALIGEMMA_PTX must name what node scripts/build-ptx.mjs --text FILE wrote");
  return gpu::cuda::readPtx(
      std::make_shared<const std::string>(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()));
}
#endif

// A GPU whose kernels run on the CPU, twice and in two orders of their threads; in a build for it, a real card.
inline std::unique_ptr<Device> emulatedGpu(const std::string& kind = kEmulatedCuda) {
#ifdef PG_TEST_CARD
  return std::make_unique<gpu::GpuDevice>(
      std::make_unique<gpu::cuda::CudaDriver>(gpu::cuda::listCards(true).at(0), kernelsForCard()));
#endif
  return std::make_unique<gpu::GpuDevice>(std::make_unique<gpu::EmulatedDriver>(emulated(kind)));
}

// The race detector knows no fibers, and would take an hour; so would an emulator on an emulated processor.
#if defined(__SANITIZE_THREAD__) || defined(PG_TEST_CPU_ALONE)
inline constexpr bool kEmulatesGpu = false;
#else
inline constexpr bool kEmulatesGpu = true;
#endif

// On an emulated processor one thread, and the far device's two, are enough.
#ifdef PG_TEST_CPU_ALONE
inline constexpr int kThreadStep = 3;
#else
inline constexpr int kThreadStep = 1;
#endif

// An emulated GPU takes a thousand times as long as a CPU: it runs some of the larger cases only.
enum class OnGpu { no, yes };

// Runs body(device, isa) on every instruction set and thread count, and on a device far away; the floats it returns
// must be the same to the last bit. Then on emulated GPUs.
template <class Body>
void onEveryDevice(const Body& body, OnGpu gpu = OnGpu::yes) {
  for (const std::string& isa : supportedIsas()) {
    std::vector<float> first;
    for (int threads = 1; threads <= 4; threads += kThreadStep) {
      const bool far = threads == 4;
      std::unique_ptr<Device> device;
      if (far) device = std::make_unique<FarDevice>(*kernelsFor(isa), 2);
      else device = std::make_unique<CpuDevice>(*kernelsFor(isa), threads);
      const std::vector<float> out = body(*device, isa);
      if (threads == 1) first = out;
      CHECK_EQUAL(out.size(), first.size());
      if (!out.empty() && std::memcmp(out.data(), first.data(), out.size() * sizeof(float)) != 0)
        throw Failure{isa, far ? "differs far away" : "differs with " + std::to_string(threads) + " threads"};
    }
  }
  if (!kEmulatesGpu || gpu == OnGpu::no) return;
  for (const std::string& kind : {kEmulatedCuda, kEmulatedMetal}) body(*emulatedGpu(kind), kind);
}

// Relative error a product may have: quantized weights meet 8-bit activations on all tables but the scalar one, on GPUs
// 16-bit ones.
inline double matmulTolerance(const std::string& isa, DType type) {
  if (isGpu(isa) && type == DType::bf16) return 4e-3;
  if (isGpu(isa)) return dtypeInfo(type)->quantized ? 1e-3 : 2e-6;
  return isa == "scalar" || !dtypeInfo(type)->quantized ? 2e-6 : 0.0125;
}

// The same for attention: 16-bit integers where they are allowed.
inline double attentionTolerance(const std::string& isa, Precision precision) {
  if (isGpu(isa)) return precision == Precision::fast ? 1e-3 : 3e-6;
  return kernelsFor(isa)->scores16 && precision == Precision::fast ? 6e-4 : 3e-6;
}

inline const DType kWeightTypes[] = {DType::f32,  DType::f16,  DType::bf16, DType::q8_0, DType::q4_0, DType::q4_1,
                                     DType::q5_0, DType::q4_k, DType::q5_k, DType::q6_k, DType::q3_k, DType::iq4_nl};

}  // namespace pg::test
